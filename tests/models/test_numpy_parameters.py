"""Parameters as NumPy arrays, as an import or a file gives them, outside of `jit`.

Models are traced with the parameters as constants: NumPy's wherever a model does not make them
JAX's, and nothing is compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from transformer import rng, testing
from transformer.batch import Batch
from transformer.models import FAMILIES, build_model
from transformer.models.quantization import quantized
from transformer.rng import Stream

B, S, T, V = 2, 5, 4, 31
BATCH = testing.random_batch(vocab_size=V, rows=B, source_length=S, target_length=T)


def traced(
    family: str, call: Callable[[Callable[..., Any], Batch], Any], change: Callable = lambda p: p
) -> Any:
    """The shapes that a call of a model gives; `call` gets the model's `apply` and a batch."""
    c = testing.model_config(
        family=family, encoder_layers=2, decoder_layers=2, dropout=0.0, vocab_size=V
    )
    model = build_model(c)
    with testing.layout():
        shapes = nn.unbox(jax.eval_shape(lambda: model.init(rng.key(0, Stream.INIT), BATCH)))
        params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes["params"])
        params = jax.tree.map(np.asarray, change(params))
        apply = lambda *args, **options: model.apply({"params": params}, *args, **options)  # noqa: E731
        return jax.eval_shape(lambda batch: call(apply, batch), BATCH)


def all_calls(apply: Any, batch: Batch) -> Any:
    """Logits of a whole batch, and of one position of decoding."""
    logits_BTV = apply(batch)
    memory = apply(batch.source, method="encode")
    cache = apply(memory, T, 2, method="init_cache")
    hidden_BWD, _ = apply(jnp.full((B, 2), 3, jnp.int32), cache, method="step")
    return logits_BTV, apply(hidden_BWD, method="logits")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_takes_numpy_parameters_outside_jit(family: str) -> None:
    if family == "encoder":  # it does not decode
        assert traced(family, lambda apply, batch: apply(batch)).shape == (B, T, V)
    else:
        logits_BTV, next_BWV = traced(family, all_calls)
        assert logits_BTV.shape == (B, T, V) and next_BWV.shape == (B, 2, V)


def test_int8_takes_numpy_parameters_outside_jit() -> None:
    logits = traced("transformer", lambda apply, batch: apply(batch), jax.jit(quantized))
    assert logits.dtype == np.float32
