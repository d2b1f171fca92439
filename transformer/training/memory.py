"""Whether training fits: the least memory that it takes, and the most that there is."""

import contextlib
import math
from collections.abc import Iterator

import jax

from transformer.errors import UserError
from transformer.memory import GIB, available_bytes
from transformer.training.state import TrainState

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
    needed, there = least_bytes(state), available_bytes()
    if there is not None and needed > there:
        count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        raise UserError(
            f"{count:,} parameters, their gradients and the optimizer take at least "
            f"{needed / GIB:,.1f} GiB, and there are {there / GIB:,.1f} GiB: {WAYS}"
        )


@contextlib.contextmanager
def said_in_one_line(tokens_per_batch: int) -> Iterator[None]:
    """Raises UserError where a device runs out of memory all the same."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"training runs out of memory with data.tokens_per_batch={tokens_per_batch}: set it "
            f"lower, training.accumulate higher or model.remat=full; or {WAYS}"
        ) from error
