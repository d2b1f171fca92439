"""For tests of models and modules on a CPU, ours and users' own.

    from transformer import testing

    def test_my_model():
        config = testing.model_config(norm="pre")
        batch = testing.random_batch(vocab_size=config.vocab_size)
        with testing.layout():
            model, variables = testing.initialised(config, batch)
            logits_BTV = model.apply(variables, batch)
        assert logits_BTV.shape == (3, 5, config.vocab_size)

Several devices on one CPU: `testing.virtual_devices(8)` before anything uses JAX's devices, then
`testing.layout(data=2, tensor=4)`. Sizes are distinct, and mostly prime, so that a swapped axis
fails.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from transformer import rng
from transformer.batch import Batch, Source, Target
from transformer.config import (
    DivergenceConfig,
    ModelConfig,
    PositionsConfig,
    RecurrentConfig,
    ShardingConfig,
    TrainingConfig,
)
from transformer.models import Seq2Seq, build_model
from transformer.rng import Stream
from transformer.sharding import Layout
from transformer.upstream import cpu

# For steps under test: dropout and the loss as they are, everything around them off.
TRAINING = TrainingConfig(steps=1, loss_chunks=2, log_every=1, eval_every=1, eval_samples=0)
DIVERGENCE = DivergenceConfig(window=1, max_times=1)


def model_config(**changes: Any) -> ModelConfig:
    """A small Transformer's configuration with distinct sizes; any field can be changed."""
    config = ModelConfig(
        encoder_layers=2,
        decoder_layers=3,
        d_model=22,
        d_ff=29,
        heads=3,
        d_k=5,
        d_v=7,
        base_d_model=22,
        base_d_k=5,
        dtype="float32",
        positions=PositionsConfig(length=64, t5_buckets=8, t5_max_distance=11, shaw_clip=3),
        recurrent=RecurrentConfig(d_hidden=26),
        vocab_size=37,
    )
    return dataclasses.replace(config, **changes)


def virtual_devices(count: int) -> None:
    """Makes one CPU `count` devices; must come before anything uses JAX's devices."""
    jax.config.update("jax_num_cpu_devices", count)
    cpu.widen_thread_pool()


def layout(**axes: int) -> Layout:
    """A mesh of so many devices along data, fsdp, tensor and sequence, with the default rules."""
    sizes = {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1, **axes}
    return Layout(
        sizes, ShardingConfig().rules, jax.devices()[: int(np.prod(list(sizes.values())))]
    )


def random_batch(
    *,
    vocab_size: int,
    rows: int = 3,
    source_length: int = 7,
    target_length: int = 5,
    packed: bool = False,
    seed: int = 0,
) -> Batch:
    """Random sentences; each row but the first has padding at its end.

    `packed` puts two sentences in each row instead of one.
    """
    random = np.random.default_rng(seed)

    def side(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        positions, segments = np.zeros((2, rows, length), np.int32)
        for row in range(rows):
            used = length - min(row, length // 2)
            cut = used // 2 if packed else used
            for segment, (start, stop) in enumerate([(0, cut), (cut, used)], start=1):
                positions[row, start:stop] = np.arange(stop - start)
                segments[row, start:stop] = segment
        ids = random.integers(4, vocab_size, (rows, length)).astype(np.int32)
        return np.where(segments > 0, ids, 0), positions, segments

    ids, positions, segments = side(target_length)
    labels = np.where(segments > 0, random.integers(4, vocab_size, ids.shape), 0).astype(np.int32)
    target = Target(ids, positions, segments, labels, (segments > 0).astype(np.float32))
    return jax.tree.map(jnp.asarray, Batch(Source(*side(source_length)), target))


def initialised(config: ModelConfig, batch: Batch, seed: int = 0) -> tuple[Seq2Seq, Any]:
    """A model and its initial variables, plain arrays; call it under a layout."""
    model = build_model(config)
    initialise = jax.jit(model.init)  # one program without the model's outputs: nobody takes them
    return model, nn.unbox(initialise(rng.key(seed, Stream.INIT), batch))


def assert_equals_reference(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Two trees agree: no entry differs by more than `tolerance` × the largest of its array.

    Raises:
        AssertionError: names the leaf that differs most, and by how much.
    """
    worst, where = 0.0, ""
    expected_leaves = jax.tree_util.tree_leaves_with_path(expected)
    for (path, want), got in zip(expected_leaves, jax.tree.leaves(actual), strict=True):
        want, got = np.asarray(want, np.float64), np.asarray(got, np.float64)
        assert want.shape == got.shape, (
            f"{jax.tree_util.keystr(path)}: {got.shape}, not {want.shape}"
        )
        error = float(np.max(np.abs(got - want), initial=0.0))
        error /= max(float(np.max(np.abs(want), initial=0.0)), 1e-30)
        if not error <= worst:  # so written that a NaN counts as the worst
            worst, where = error, jax.tree_util.keystr(path) or "the array"
    assert worst <= tolerance, (
        f"{where} differs by {worst:.2e} of its largest (allowed {tolerance:.0e})"
    )
