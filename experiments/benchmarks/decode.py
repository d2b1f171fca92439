"""How fast a model translates, beside Hugging Face's and CTranslate2: the same weights, in turns.

    python -m experiments.benchmarks.decode --json=experiments/results/decode.json \\
        --png=experiments/results/decode.png

AIAYN's base as a MarianMTModel (biases everywhere, swish, 16,000 words), of random numbers: 32
sentences of 32 tokens each, 32 tokens said of each, greedily and with a beam of 4. Ours is
`Translator.translate` of an import (`transformer.interop.marian`), batching included; theirs are
`generate`, and CTranslate2's conversion of the same folder, in float32 and in int8, all on as many
threads as there are cores. The weights themselves put `</s>` and padding out of reach, so that all
go on to the limit: 32 passes through the decoder, the last of which says `</s>` in ours and in
`generate`. How many sentences are said as ours says them is counted: all but that last token.

What a row gives are medians over rounds, contenders in turns, and the median of each round's ratio.
A turn's first translation, the slower one after a pause, is not timed.
Tokens are those said, whatever the beam.

Measured (results/decode.json, 2 cores of an AMD EPYC with AVX-512): ours is 2.18 times as fast as
CTranslate2 in float32 greedily, 1.42 times with a beam of 4. With whole numbers ours says 1.17 and
0.87 times as many tokens a second as CTranslate2 does.

Where ours spends its time is what JAX's profiler says of one more translation, by the parts of the
model: milliseconds of instructions and how many there were. With whole numbers, greedily, 42 % go
into the products of the decoder's weights, 45 billion operations in 200 ms; as many take 70 ms in
the encoder, where a product has 1,024 rows, not 32. So XLA's kernel for few rows stands in the way.

The limit. In each token there are multiply-adds, with S = T = tokens of a sentence, W the beam:

    encoder, a source token   N (4 D² + 2 D S + 2 D F), and 2 N D² for the decoder's keys and values
    decoder, a hypothesis     N (6 D² + 2 D S + D (T + 1) + 2 D F) + D V

FLOPs are twice as many. The bytes that a pass of the decoder must read, at 4 each: its weights and
the table once, N 2 D S for each sentence, N D (T + 1) on average for each hypothesis. The limit is
what takes longer: the FLOPs at the rate of a large matrix product, or the bytes at that of a large
copy (of one core), both measured in the same run.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from experiments.benchmarks.common import (
    bars,
    limit_line,
    matrix_rate,
    memory_rate,
    new_figure,
    record,
    seconds,
)
from experiments.benchmarks.peers import Missing, Peer, environment
from experiments.benchmarks.profiled import Recorded, milliseconds, show
from transformer import runtime
from transformer.decoding import Translator
from transformer.files import write_json
from transformer.inspection.figures import write_figure
from transformer.interop import marian
from transformer.models import build_model
from transformer.sharding import Layout

LIBRARIES = "safetensors sentencepiece numpy"
REQUIREMENTS = (
    f"torch==2.13.0+cpu transformers==5.23.* ctranslate2==4.8.* {LIBRARIES}",
    f"torch transformers ctranslate2 {LIBRARIES}",
)
# Ours: the name of a row, and what more `Translator` is given for it.
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, int8": {"weights": "int8"},
}
PROGRAM = "decode_peers.py"
PEERS = ("Hugging Face", "CTranslate2", "CTranslate2, int8")
FIRST = "ours"  # what the others' tokens and times are compared with
BEAMS = (1, 4)
NEVER = -1e9
SHARE = 0.3  # of what a sub-layer adds in what it is added to
# Parts of a translation: what is found in an instruction's name and scopes.
PARTS = (
    ("words' scores", r"logits/.*dot_general"),
    ("attention: products of activations", r"/BGR\w+,\w+->\w+/dot_general|^dot\S* $"),
    ("encoder, once: products with weights", r"(encode|cross_keys_values)\b.*/dot_general"),
    ("decoder, each token: products with weights", r"/dot_general"),
    ("rounding of activations", r"(forward|_heads|_projected)/(reduce_max|convert|round|div)"),
    ("caches: made, written, copied", r"cache|update_slice|^(wrapped_|copy|\w*broadcast\.)"),
    ("positions, once", r"positions\.add"),
)
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
    """As `MarianMTModel.save_pretrained` would."""
    (folder / "config.json").write_text(json.dumps(size.config))
    save_file(weights(size), folder / "model.safetensors", {"format": "pt"})


class Numbers:
    """A tokenizer whose words are ids, ours."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[int(word) for word in text.split()] for text in texts]

    def decode(self, ids: list[list[int]]) -> list[str]:
        return [" ".join(map(str, row)) for row in ids]


@dataclasses.dataclass(frozen=True)
class Contender:
    """Who translates.

    Attributes:
        said: each sentence's tokens in Marian's ids, without the last.
        run: says all sentences, and the seconds that it took.
        where: milliseconds of `run` by part, of ours.
    """

    name: str
    said: list[list[int]]
    run: Callable[[], float]
    where: Callable[[], dict[str, Any]] | None = None


def ours(size: Size, folder: Path, name: str, beam: int) -> Contender:
    """Compiled, and run once."""
    imported, layout = marian.load(folder), Layout.single()
    recorded = Recorded(layout.jit)
    translator = Translator(
        build_model(imported.config),
        jax.device_put(imported.params),
        Numbers(),
        beam=beam,
        length_penalty="power",
        alpha=1.0,
        extra_length=0,
        n_best=1,
        tokens_per_batch=size.rows * size.tokens,
        row_multiple=size.rows,
        length_multiple=size.tokens,
        max_length=size.tokens,
        jit=recorded,
        place=layout.place,
        **OURS[name],
    )
    text = [" ".join(map(str, imported.ours_of[row[:-1]])) for row in size.sources]
    said = [imported.theirs_of[list(best.tokens)] for best, *_ in translator.translate(text)]
    run = lambda: seconds(lambda: translator.translate(text))  # noqa: E731
    return Contender(
        name,
        [row.tolist() for row in said],
        run,
        lambda: milliseconds(run, recorded.names(), PARTS),
    )


def theirs(peer: Peer, size: Size, name: str, beam: int) -> Contender:
    """The same of another; the tokens compared are those before the last pass."""
    ask = {"contender": name, "beam": beam}
    last = name == "Hugging Face"  # it says </s> in the last pass, and CTranslate2 one word more
    said = peer.ask({**ask, "tokens": size.tokens - 1 + last})["ids"]
    timed = {**ask, "tokens": size.tokens}
    peer.ask(timed)
    return Contender(
        name, [row[: size.tokens - 1] for row in said], lambda: peer.ask(timed)["seconds"]
    )


def measure(
    size: Size, beam: int, contenders: list[Contender], rounds: int
) -> list[dict[str, Any]]:
    """A row a contender: medians of rounds in which each has a turn."""

    def turn(contender: Contender) -> float:
        contender.run()  # after a pause: slower
        return contender.run()

    times = [{c.name: turn(c) for c in contenders} for _ in range(rounds)]
    (reference,) = (c for c in contenders if c.name == FIRST)
    rows = []
    for contender in contenders:
        name, said = contender.name, contender.said
        taken = statistics.median(turn[name] for turn in times)
        rows.append(
            {
                "contender": name,
                "beam": beam,
                "seconds": taken,
                "tokens_per_second": size.rows * size.tokens / taken,
                "ours_times_as_fast": statistics.median(t[name] / t[FIRST] for t in times),
                "sentences": size.rows,
                "said_as_ours": sum(map(list.__eq__, said, reference.said)),
            }
        )
    return rows


def run(
    size: Size, peer: Peer | None, beam: int, rounds: int, folder: Path, limit: float
) -> list[dict[str, Any]]:
    """The rows of a beam's width, said as they are measured."""
    contenders = [ours(size, folder, name, beam) for name in OURS]
    if peer is not None:
        contenders += [theirs(peer, size, name, beam) for name in PEERS]
    rows = measure(size, beam, contenders, rounds)
    for row in rows:
        row |= {
            "limit_tokens_per_second": limit,
            "share_of_limit": row["tokens_per_second"] / limit,
        }
        print(_line(row), flush=True)
    for row, contender in zip(rows, contenders, strict=True):
        if contender.where is not None:
            contender.run()
            row["where"] = contender.where()
            print(f"beam {beam}  {contender.name}, by the profiler:")
            show(row["where"])
    return rows


def _line(row: dict[str, Any]) -> str:
    line = (
        f"beam {row['beam']}  {row['contender']:<18} {row['tokens_per_second']:>8,.0f} tokens/s "
        f"({row['share_of_limit']:>4.0%} of the limit)"
    )
    if row["contender"] == FIRST:
        return line
    return (
        f"{line}; ours is {row['ours_times_as_fast']:.2f} times as fast; "
        f"{row['said_as_ours']} of {row['sentences']} said as ours says them"
    )


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Bars of tokens a second, a panel a beam, and the limit."""
    beams = sorted({row["beam"] for row in rows})
    figure = new_figure(len(beams))
    for axes, beam in zip(figure.axes, beams, strict=True):
        mine = [row for row in rows if row["beam"] == beam]
        bars(axes, {row["contender"]: row["tokens_per_second"] for row in mine}, OURS)
        limit_line(axes, mine[0]["limit_tokens_per_second"], "limit in float32")
        axes.set(title=f"beam {beam}", ylabel="tokens a second")
    write_figure(path, figure)


def main(arguments: list[str]) -> None:
    """Measures each beam's contenders and says so."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.decode")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args(arguments)
    if jax.default_backend() != "cpu":
        sys.exit(f"error: JAX runs on {jax.default_backend()}, the others on the CPU")
    size, rows, versions = SIZES[options.size], [], {}
    rate, bandwidth = matrix_rate(), memory_rate()
    print(f"matrix products: {rate / 1e9:,.0f} GFLOP/s; copies: {bandwidth / 1e9:,.1f} GB/s")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_model(size, folder)
        peer = None
        if not options.no_peers:
            try:
                python = environment(*REQUIREMENTS)
                peer = stack.enter_context(Peer(python, Path(__file__).with_name(PROGRAM)))
                threads = len(os.sched_getaffinity(0))
                request = {"folder": str(folder), "sources": size.sources, "threads": threads}
                versions = peer.ask(request)["versions"]
            except Missing as error:
                sys.exit(f"error: {error}; --no-peers measures ours alone")
        for beam in BEAMS:
            limit = size.limit(beam, rate, bandwidth)
            rows += run(size, peer, beam, options.rounds, folder, limit)
    if options.json:
        described = record("experiments.benchmarks.decode", arguments)
        measured = {"matrix_flops": rate, "copied_bytes": bandwidth, "peers": versions}
        write_json(
            options.json,
            {
                **described,
                "size": dataclasses.asdict(size),
                "rounds": options.rounds,
                **measured,
                "rows": rows,
            },
        )
    if options.png:
        draw(options.png, rows)


if __name__ == "__main__":
    runtime.ask_for_huge_pages()
    main(sys.argv[1:])
