"""Whether training fits: the least memory that it takes, and the most that there is."""

import contextlib
import math

import jax

from transformer import memory
from transformer.checkpoints.state import TrainState

WAYS = "make the model smaller, or split it over more devices (mesh.fsdp, mesh.tensor)"


def least_bytes(state: TrainState) -> int:
    """The bytes of a training state and of its gradients, on all devices together.

    Args:
        state: arrays, or their shapes, with their shardings.
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape))
        * leaf.dtype.itemsize
        * leaf.sharding.num_devices
        for leaf in jax.tree.leaves((state, state.params))
    )


def refuse_too_large(state: TrainState) -> None:
    """Refuses a model that cannot be trained in all memory that there is.

    Raises:
        UserError: names both numbers.
    """
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    what = f"{count:,} parameters, their gradients and the optimizer take at least {{}}"
    memory.require(least_bytes(state), what, WAYS)


def said_in_one_line(tokens_per_batch: int) -> contextlib.AbstractContextManager[None]:
    """Raises UserError where a device runs out of memory all the same."""
    return memory.exhausted_as(
        f"training runs out of memory with data.tokens_per_batch={tokens_per_batch}: set it "
        f"lower, training.accumulate higher or model.remat=full; or {WAYS}"
    )
