"""Leak proofs of the whole model: no output moves with an input that it may not see.

For each attention backend, scanned or unrolled, in teacher forcing and with the cache: the gradient
of an output with respect to every input of another segment, of padding, of the future and of
another row is exactly zero; and it is not zero towards what it may see.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.model_options import trained
from transformer import testing
from transformer.config import AttentionConfig
from transformer.models.transformer.kv_cache import KVCache

B, S, T, W, L = 2, 8, 6, 2, 4
BACKENDS = ["reference", "xla", "chunked", "splash", "ring:chunked", "ring:splash", "ulysses"]
QUICK = [("transformer", "chunked", False)]
# The slow lane: each backend in both families, scanned in one and unrolled in the other.
EVERY = [
    pytest.param(*row, marks=() if row in QUICK else pytest.mark.slow)
    for row in itertools.product(("transformer", "decoder"), BACKENDS, (False, True))
    if row in QUICK or (BACKENDS.index(row[1]) + (row[0] == "decoder")) % 2 == row[2]
]


def parts(family: str, backend: str, unroll: bool) -> tuple[Any, Any, Any, Any]:
    """A model with one row of its table for each position of a batch; that batch; its mesh."""
    config = testing.model_config(
        family=family,
        encoder_layers=2,
        decoder_layers=2,
        heads=4,
        d_model=16,
        d_ff=24,
        dropout=0.0,
        unroll=unroll,
        vocab_size=B * (S + T),
        attention=AttentionConfig(backend=backend),
    )
    batch = testing.random_batch(
        vocab_size=9, rows=B, source_length=S, target_length=T, packed=True
    )
    batch = batch.replace(
        source=batch.source.replace(ids=jnp.arange(B * S).reshape(B, S)),
        target=batch.target.replace(ids=B * S + jnp.arange(B * T).reshape(B, T)),
    )
    across = backend.startswith(("ring", "ulysses"))
    layout = testing.layout(tensor=2, sequence=2) if across else testing.layout()
    return *trained(config, batch), batch, layout


@pytest.mark.parametrize(("family", "backend", "unroll"), EVERY)
def test_teacher_forcing(family: str, backend: str, unroll: bool) -> None:
    model, variables, batch, layout = parts(family, backend, unroll)

    def pull(table, cotangent):
        params = {**variables["params"], "embedding": {"table": table}}
        memory = lambda: model.apply({"params": params}, batch.source, method="encode")  # noqa: E731
        hidden = model.apply({"params": params}, batch.target, memory(), method="decode")
        return jnp.vdot(hidden, cotangent)

    gradient = layout.jit(jax.grad(pull))
    table = variables["params"]["embedding"]["table"]
    weights = jax.random.normal(jax.random.key(3), (B, T, model.config.d_model))
    source, target = (np.asarray(x.segments) for x in (batch.source, batch.target))
    for b in range(B):
        for t in range(T):
            only = jnp.zeros_like(weights).at[b, t].set(weights[b, t])
            moved = np.any(np.asarray(gradient(table, only)) != 0, axis=1)
            moved_source, moved_target = moved[: B * S].reshape(B, S), moved[B * S :].reshape(B, T)
            may_source, may_target = np.zeros((B, S), bool), np.zeros((B, T), bool)
            if target[b, t]:
                may_source[b] = source[b] == target[b, t]
                may_target[b, : t + 1] = target[b, : t + 1] == target[b, t]
            may_target[b, t] = True  # itself, by the residual connection
            np.testing.assert_array_equal(moved_source, may_source, f"row {b}, position {t}")
            np.testing.assert_array_equal(moved_target, may_target, f"row {b}, position {t}")


@pytest.mark.parametrize(("family", "backend", "unroll"), EVERY)
def test_cached(family: str, backend: str, unroll: bool) -> None:
    """One step moves with its own row's memory and its hypothesis's past, and nothing else."""
    model, variables, batch, layout = parts(family, backend, unroll)
    index = 2
    # Decoding splits no lengths, and each row is one sentence: segments 1, and 0 for padding.
    source = batch.source.replace(segments=(batch.source.segments > 0).astype(jnp.int32))
    apply: Any = lambda *args, method: model.apply(variables, *args, method=method)  # noqa: E731

    def pull(hidden, written, cotangent):
        memory = apply(source, method="encode").replace(hidden=hidden)
        cache = apply(memory, L, W, method="init_cache")
        like = lambda noise, leaf: noise.astype(leaf.dtype)  # noqa: E731
        cache = cache.replace(
            index=jnp.asarray(index, jnp.int32),
            ancestors=jnp.asarray(ancestors_BWL),
            self_kv=jax.tree.map(like, written, cache.self_kv),
        )
        out, _ = apply(jnp.zeros((B, W), jnp.int32), cache, method="step")
        return jnp.vdot(out, cotangent)

    with layout.whole("length") as whole:
        c = model.config
        ancestors_BWL = np.random.default_rng(0).integers(0, W, (B, W, L), dtype=np.int32)
        noise = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)  # noqa: E731
        written = tuple(
            KVCache(noise(4 + n, B, c.heads, c.d_k, L * W), noise(7 + n, B, c.heads, L * W, c.d_v))
            for n in range(c.decoder_layers)
        )
        hidden, weights = noise(2, B, S, c.d_model), noise(3, B, W, c.d_model)
    gradient = whole.jit(jax.grad(pull, argnums=(0, 1)))
    used = np.asarray(source.segments) > 0
    for b in range(B):
        for w in range(W):
            only = jnp.zeros_like(weights).at[b, w].set(weights[b, w])
            to_memory, to_written = gradient(hidden, written, only)
            may_memory = np.zeros((B, S), bool)
            may_memory[b] = used[b]
            np.testing.assert_array_equal((np.asarray(to_memory) != 0).any(2), may_memory)
            may_written = np.zeros((B, L, W), bool)
            past = range(index)  # position `index` is written by the step itself
            may_written[b, past, ancestors_BWL[b, w, past]] = True
            for kept in to_written:
                for leaf, axes in ((kept.k, (1, 2)), (kept.v, (1, 3))):
                    moved_BJ = (np.asarray(leaf) != 0).any(axes)
                    np.testing.assert_array_equal(moved_BJ.reshape(B, L, W), may_written)
