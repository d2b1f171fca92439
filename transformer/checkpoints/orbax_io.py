"""How Orbax writes and reads checkpoints: durably, and with little memory beside the arrays."""

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from transformer.upstream.orbax import Durable

RESTORE_AT_ONCE = 64 * 2**20  # bytes read at a time at most, or one array if that is larger


class Preserve:
    """Orbax's question which checkpoints to preserve, passed on to a function of their steps."""

    def __init__(self, choose: Callable[[list[int]], Iterable[int]]):
        self._choose = choose

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [info.step for info in checkpoints]
        preserved = {*self._choose(steps)}
        return [step in preserved for step in steps]


def manager(
    directory: Path, *, kept: Callable[[list[int]], Iterable[int]], read_only: bool
) -> ocp.CheckpointManager:
    """Orbax's manager of a directory of checkpoints: writes in the background, deletes the old."""
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            preservation_policy=Preserve(kept),  # pyright: ignore[reportArgumentType]
            temporary_path_class=Durable,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            lightweight_initialize=True,  # a damaged file must not keep the others from being read
            enable_async_checkpointing=True,
        ),
    )


def read(item: Path, abstract: Any) -> Any:
    """The arrays of one item of a checkpoint, placed as `abstract` says; may raise anything.

    Each process reads its own part, without meeting the others: where one cannot, it can say so.
    """
    largest = max((x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract)), default=0)
    handler = ocp.StandardCheckpointHandler(
        # A whole number of bytes survives the way there and back only if it is rounded up.
        restore_concurrent_gb=(max(RESTORE_AT_ONCE, largest) + 1) / 10**9  # pyright: ignore
    )
    try:
        return handler.restore(epath.Path(item), args=ocp.args.StandardRestore(abstract))
    finally:
        handler.close()
        trim()


def trim() -> None:
    """Gives freed memory back to the system: the C library would keep hundreds of megabytes."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
