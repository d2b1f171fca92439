"""Imported Marian models beside transformers itself: logits, and what searches say.

    tests/run -m peers tests/interop
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.decode import REQUIREMENTS
from experiments.benchmarks.peers import environment
from transformer.batch import Batch, Source, Target
from transformer.data.tokenizers import BOS
from transformer.decoding import Translator
from transformer.interop import marian
from transformer.models import build_model
from transformer.sharding import Layout

PROGRAM = Path(__file__).with_name("marian_peer.py")
V, EXTRA, ALPHA = 53, 6, 0.8
CONFIG = {
    "vocab_size": V,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 29,
    "decoder_ffn_dim": 29,
    "max_position_embeddings": 64,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": V - 1,
    "decoder_start_token_id": V - 1,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
}


class Ids:
    """A tokenizer whose text is ids, in our terms."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[int(word) for word in text.split()] for text in texts]

    def decode(self, ids: list[list[int]]) -> list[str]:
        return [" ".join(map(str, row)) for row in ids]


def theirs(folder: Path, config: dict[str, Any], **request: Any) -> dict[str, Any]:
    asked = json.dumps({"folder": str(folder), "config": config, **request})
    answer = subprocess.run(
        [environment(*REQUIREMENTS), PROGRAM], input=asked, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.peers
@pytest.mark.parametrize(
    ("changes", "eos_bias"),
    [
        ({}, 3.0),
        ({}, -1e9),
        ({"activation_function": "relu", "scale_embedding": False}, -1e9),
        ({"activation_function": "gelu", "share_encoder_decoder_embeddings": False}, -1e9),
        ({"tie_word_embeddings": False, "decoder_start_token_id": 5}, -1e9),
        (
            {"tie_word_embeddings": False, "share_encoder_decoder_embeddings": False},
            -1e9,
        ),
    ],
    ids=["swish, ends", "swish", "relu, not scaled", "gelu, two tables", "not tied", "three tables"],
)
def test_it_is_the_same_model(tmp_path: Path, changes: dict[str, Any], eos_bias: float) -> None:
    random = np.random.default_rng(0)
    sources = [[*random.integers(1, V - 1, n).tolist(), 0] for n in (9, 7, 9, 4, 1, 12, 12, 5)]
    config = {**CONFIG, **changes}
    start = config["decoder_start_token_id"]
    target_BT = random.integers(1, V - 1, (len(sources), 11))
    target_BT[:, 0] = start
    request = {"sources": sources, "target": target_BT.tolist()}
    said = theirs(
        tmp_path, config, **request, extra_length=EXTRA, alpha=ALPHA, eos_bias=eos_bias
    )

    imported, layout = marian.load(tmp_path), Layout.single()
    model, ours_of = build_model(imported.config), imported.ours_of
    longest = max(map(len, sources))
    ids, segments = np.zeros((2, len(sources), longest), np.int32)
    for row, source in enumerate(sources):
        ids[row, : len(source)], segments[row, : len(source)] = ours_of[source], 1
    positions = np.broadcast_to(np.arange(longest, dtype=np.int32), ids.shape)
    ones = np.ones(target_BT.shape, np.int32)
    target = ours_of[target_BT]
    target[:, 0] = BOS
    places = np.broadcast_to(np.arange(target.shape[1], dtype=np.int32), target.shape)
    batch = Batch(
        Source(ids, positions, segments),
        Target(target, places, ones, target, ones.astype(np.float32)),
    )
    logits = layout.jit(model.apply)({"params": imported.params}, jax.tree.map(jnp.asarray, batch))
    expected = np.asarray(said["logits"], np.float32)
    np.testing.assert_allclose(np.asarray(logits)[..., ours_of], expected, rtol=1e-4, atol=1e-4)

    text = [" ".join(map(str, ours_of[source[:-1]])) for source in sources]
    for name, beam in (("greedy", 1), ("beam", 4)):
        translator = Translator(
            model,
            imported.params,
            Ids(),
            beam=beam,
            length_penalty="power",
            alpha=ALPHA,
            extra_length=EXTRA,
            n_best=1,
            tokens_per_batch=512,
            row_multiple=8,
            length_multiple=16,
            max_length=16,
            jit=layout.jit,
            place=layout.place,
        )
        found = [best for best, *_ in translator.translate(text)]
        ours = [[*imported.theirs_of[list(best.tokens)].tolist(), 0] for best in found]
        print(name, [len(x) for x in ours], sum(a==b for a,b in zip(ours,said[name],strict=True)))
        assert ours == said[name], name
