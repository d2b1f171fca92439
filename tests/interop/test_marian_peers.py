"""Imported Marian models beside transformers itself: logits, and what searches say.

tests/run -m peers tests/interop
"""

import dataclasses
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
from transformer.batch import BOS, Batch, Source, Target
from transformer.decoding import InputShapes, Translator
from transformer.interop import marian
from transformer.models import build_model
from transformer.sharding import Layout

PROGRAM = Path(__file__).parents[1] / "support" / "marian_peer.py"
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
LENGTHS = (9, 7, 9, 4, 1, 12, 12, 5)
SOURCES = [[*np.random.default_rng(n).integers(1, V - 1, n).tolist(), 0] for n in LENGTHS]


class Ids:
    """A tokenizer whose text is ids, in our terms."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[int(word) for word in text.split()] for text in texts]

    def decode(self, ids: list[list[int]]) -> list[str]:
        return [" ".join(map(str, row)) for row in ids]


@pytest.mark.peers
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation_function": "relu", "scale_embedding": False},
        {"activation_function": "gelu", "share_encoder_decoder_embeddings": False},
        {"tie_word_embeddings": False, "decoder_start_token_id": 5},
        {"tie_word_embeddings": False, "share_encoder_decoder_embeddings": False},
    ],
    ids=["swish", "relu, not scaled", "gelu, two tables", "not tied", "three tables"],
)
def test_it_is_the_same_model(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Where only the limit ends hypotheses, beams are the same too (see the module's docstring)."""
    said, imported = both(tmp_path, {**CONFIG, **changes}, eos_bias=-1e9)
    assert translated(imported, beam=1) == said["greedy"]
    assert translated(imported, beam=4) == said["beam"]


@pytest.mark.peers
def test_greedy_search_ends_where_theirs_does(tmp_path: Path) -> None:
    said, imported = both(tmp_path, CONFIG, eos_bias=3.5)
    limits = [len(source) + EXTRA for source in SOURCES]
    lengths = [len(ids) for ids in said["greedy"]]
    assert len({*map(int.__sub__, limits, lengths)}) > 2, "some end before the limit"
    assert translated(imported, beam=1) == said["greedy"]


def both(
    folder: Path, config: dict[str, Any], eos_bias: float
) -> tuple[dict[str, Any], marian.Imported]:
    """What transformers says of a model that it made, and our import, whose logits agree."""
    target_BT = np.random.default_rng(1).integers(1, V - 1, (len(SOURCES), 11))
    target_BT[:, 0] = config["decoder_start_token_id"]
    request = {"sources": SOURCES, "target": target_BT.tolist(), "eos_bias": eos_bias}
    asked = {"folder": str(folder), "config": config, "extra_length": EXTRA, "alpha": ALPHA}
    answer = subprocess.run(
        [environment(*REQUIREMENTS), PROGRAM],
        input=json.dumps({**asked, **request}),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    said, imported = json.loads(answer.stdout.splitlines()[-1]), marian.load(folder)

    source = Source.of([imported.ours_of[source].tolist() for source in SOURCES])
    fed = imported.ours_of[target_BT]
    fed[:, 0] = BOS
    target = Target.of(np.roll(fed, -1, axis=1))  # fed what is before each label
    batch = Batch(source, target.replace(ids=fed))
    logits = Layout.single().jit(build_model(imported.config).apply)
    found = logits({"params": imported.params}, jax.tree.map(jnp.asarray, batch))
    expected = np.asarray(said["logits"], np.float32)
    np.testing.assert_allclose(found[..., imported.ours_of], expected, rtol=1e-4, atol=1e-4)
    return said, imported


def translated(imported: marian.Imported, beam: int) -> list[list[int]]:
    """Their ids of what we say of the sources."""
    decoding = dataclasses.replace(
        imported.decoding, beam=beam, alpha=ALPHA, extra_length=EXTRA, tokens_per_batch=512
    )
    shapes = InputShapes(max_length=16, length_multiple=16)
    model = build_model(imported.config)
    translator = Translator(model, imported.params, Ids(), decoding, shapes=shapes)
    text = [" ".join(map(str, imported.ours_of[source[:-1]])) for source in SOURCES]
    found = [best for best, *_ in translator.translate(text)]
    return [[*imported.theirs_of[list(best.tokens)].tolist(), 0] for best in found]
