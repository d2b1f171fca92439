"""A small Transformer with any options, for the tests of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from transformer import rng, testing
from transformer.batch import Batch
from transformer.config import AttentionConfig, ModelConfig
from transformer.models import build_model
from transformer.rng import Stream

B, S, T, V = 2, 9, 7, 31
LENGTHS = {"source": (9, 8), "target": (7, 6)}  # of the rows: `random_batch` pads the second
SIZES: Any = {"vocab_size": V, "rows": B, "source_length": S, "target_length": T}


def config(*, scheme: str = "sinusoidal", backend: str = "auto", **changes: Any) -> ModelConfig:
    made = testing.model_config(
        encoder_layers=2,
        decoder_layers=2,
        d_model=12,
        d_ff=14,
        heads=4,
        d_k=6,
        d_v=5,
        base_d_model=8,
        base_d_k=4,
        dropout=0.0,
        vocab_size=V,
        attention=AttentionConfig(backend=backend),
    )
    positions = dataclasses.replace(made.positions, scheme=scheme, length=16)
    return dataclasses.replace(made, positions=positions, **changes)


def drawn(c: ModelConfig, batch: Batch, seed: int = 0) -> Any:
    """Random parameters: nothing is at the value that it begins with."""
    model, random = build_model(c), np.random.default_rng(seed)
    with testing.layout():
        shapes = jax.eval_shape(lambda: model.init(rng.key(0, Stream.INIT), batch)["params"])

    def draw(path: Any, leaf: Any) -> Any:
        spread = random.normal(size=leaf.shape) * (0.3 if leaf.ndim > 2 else 0.5)
        is_scale = jax.tree_util.keystr(path).endswith("['scale']")
        return jnp.asarray(spread + is_scale, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, nn.unbox(shapes))


def trained(c: ModelConfig, batch: Batch) -> tuple[Any, Any]:
    """A model and random variables."""
    return build_model(c), {"params": drawn(c, batch)}


def compiled(model: Any) -> Any:
    """`model.apply`, one program for each shape; to be called under one layout."""
    return jax.jit(model.apply, static_argnames=("method", "mutable"))
