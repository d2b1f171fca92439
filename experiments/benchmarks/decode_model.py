"""The model that decode.py's contenders run: AIAYN's as a MarianMTModel, and what limits its speed.

The limit. In each token there are multiply-adds, with S = T = tokens of a sentence, W the beam:

    encoder, a source token   N (4 D² + 2 D S + 2 D F), and 2 N D² for the decoder's keys and values
    decoder, a hypothesis     N (6 D² + 2 D S + D (T + 1) + 2 D F) + D V

FLOPs are twice as many. The bytes that a pass of the decoder must read, at 4 each: its weights and
the table once, N 2 D S for each sentence, N D (T + 1) on average for each hypothesis. The limit is
what takes longer: the FLOPs at the rate of a large matrix product, or the bytes at that of a large
copy (of one core).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

NEVER = -1e9
SHARE = 0.3  # of what a sub-layer adds in what it is added to
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


@dataclasses.dataclass(frozen=True)
class Size:
    """A model and what it is to say."""

    layers: int  # N, of the encoder and of the decoder
    d_model: int
    d_ff: int
    heads: int
    vocabulary: int
    rows: int
    tokens: int  # of a sentence, `</s>` included, source and target

    def flops(self, beam: int) -> float:
        """Of one token said."""
        N, D, F, T = self.layers, self.d_model, self.d_ff, self.tokens
        encoder = N * (4 * D**2 + 2 * D * T + 2 * D * F) + 2 * N * D**2
        decoder = N * (6 * D**2 + 2 * D * T + D * (T + 1) + 2 * D * F) + D * self.vocabulary
        return 2.0 * (encoder + beam * decoder)

    def bytes(self, beam: int) -> float:
        """Of one pass of the decoder, the encoder's left out."""
        N, D, F, T = self.layers, self.d_model, self.d_ff, self.tokens
        weights = N * (6 * D**2 + 2 * D * F) + D * self.vocabulary
        caches = N * 2 * D * T + beam * N * D * (T + 1)
        return 4.0 * (weights + self.rows * caches)

    def limit(self, beam: int, rate: float, bandwidth: float) -> float:
        """Tokens a second at most, at so many FLOPs and bytes a second."""
        products = self.flops(beam) * self.rows / rate
        return self.rows / max(products, self.bytes(beam) / bandwidth)

    @property
    def config(self) -> dict[str, Any]:
        """config.json of it."""
        pad = self.vocabulary - 1
        sides = {}
        for side in ("encoder", "decoder"):
            sides |= {
                f"{side}_layers": self.layers,
                f"{side}_attention_heads": self.heads,
                f"{side}_ffn_dim": self.d_ff,
            }
        return {
            "architectures": ["MarianMTModel"],
            "model_type": "marian",
            "vocab_size": self.vocabulary,
            "d_model": self.d_model,
            "max_position_embeddings": 512,
            "activation_function": "swish",
            "scale_embedding": True,
            "dtype": "float32",
            "pad_token_id": pad,
            "decoder_start_token_id": pad,
            "eos_token_id": 0,
            "forced_eos_token_id": 0,
            **sides,
        }

    @property
    def sources(self) -> list[list[int]]:
        """Random sentences, in Marian's ids."""
        shape = (self.rows, self.tokens - 1)
        words = np.random.default_rng(1).integers(2, self.vocabulary - 1, shape)
        return [[*row, 0] for row in words.tolist()]


SIZES = {
    "base": Size(6, 512, 2_048, 8, 16_000, rows=32, tokens=32),
    "tiny": Size(2, 32, 64, 4, 101, rows=8, tokens=8),
}


def weights(size: Size) -> dict[str, np.ndarray]:
    """A MarianMTModel's tensors: random, but what none must say is out of reach.

    Scores have a deviation of 2, so that few are near to a tie. A sub-layer adds less than what it
    is given, and norms' scales are of either sign: so the next word depends on the last one, on its
    place and on the source, and is another. Decoding starts from zeros, as in all Marian models.
    """
    random, D, F = np.random.default_rng(0), size.d_model, size.d_ff
    tensors = {}

    def normal(name: str, shape: tuple[int, ...], deviation: float) -> None:
        tensors[name] = deviation * random.standard_normal(shape, np.float32)

    normal("model.shared.weight", (size.vocabulary, D), 2.0 * D**-0.5)
    tensors["model.shared.weight"][-1] = 0.0
    tensors["final_logits_bias"] = np.zeros((1, size.vocabulary), np.float32)
    tensors["final_logits_bias"][0, [0, -1]] = NEVER
    attentions = {"encoder": ["self_attn"], "decoder": ["self_attn", "encoder_attn"]}
    for side, names in attentions.items():
        for path in (f"model.{side}.layers.{i}" for i in range(size.layers)):
            linears = {f"{a}.{kind}": (D, D) for a in names for kind in PROJECTIONS}
            for name, shape in {**linears, "fc1": (F, D), "fc2": (D, F)}.items():
                gain = SHARE if name.endswith(("out_proj", "fc2")) else 1.0
                normal(f"{path}.{name}.weight", shape, gain * shape[1] ** -0.5)
                normal(f"{path}.{name}.bias", shape[:1], 0.1)
            for name in (*names, "final"):
                norm = f"{path}.{name}_layer_norm"
                normal(f"{norm}.weight", (D,), 0.1)
                tensors[f"{norm}.weight"] += random.choice(np.array([-1, 1], np.float32), D)
                normal(f"{norm}.bias", (D,), 0.1)
    return tensors


def write_model(size: Size, folder: Path) -> None:
    """Writes what `MarianMTModel.save_pretrained` would, without the package safetensors."""
    (folder / "config.json").write_text(json.dumps(size.config), "utf-8")
    tensors, end = weights(size), 0
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, x in tensors.items():
        place = [end, end := end + x.nbytes]
        header[name] = {"dtype": "F32", "shape": x.shape, "data_offsets": place}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for x in tensors.values():
            file.write(x.astype("<f4").tobytes())
