"""How Orbax writes and reads checkpoints: durably, and with little memory beside the arrays."""

import asyncio
import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint._src.metadata import checkpoint as step_metadata
from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath

from transformer.files import sync

RESTORE_AT_ONCE = 64 * 2**20  # bytes read at a time at most, or one array if that is larger


class Durable(AtomicRenameTemporaryPath):
    """Orbax's temporary directory, made durable before the rename that makes it count.

    Every file and folder is synced, then the directory gets its name, then that name is synced:
    after a power cut a checkpoint is there whole, or it is not there. Orbax renames at once.
    """

    async def finalize(self) -> None:
        if store := self._checkpoint_metadata_store:
            path = step_metadata.step_metadata_file_path(self.get())
            store.update(file_path=path, commit_timestamp_nsecs=time.time_ns())
            await asyncio.to_thread(store.wait_until_finished)
        final = Path(self.get_final())
        await asyncio.to_thread(_sync_tree, Path(self.get()))
        sync(final.parent.parent)  # the names of what else the run needs: config, tokenizer
        os.rename(self.get(), final)
        sync(final.parent)


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(parent) / name)
        sync(Path(parent))


class Kept:
    """Orbax's question which checkpoints to preserve, passed on to a function of their steps."""

    def __init__(self, choose: Callable[[list[int]], Iterable[int]]):
        self._choose = choose

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [info.step for info in checkpoints]
        kept = {*self._choose(steps)}
        return [step in kept for step in steps]


def manager(
    directory: Path, *, kept: Callable[[list[int]], Iterable[int]], read_only: bool
) -> ocp.CheckpointManager:
    """Orbax's manager of a directory of checkpoints: writes in the background, deletes the old."""
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            preservation_policy=Kept(kept),  # pyright: ignore[reportArgumentType]
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
        _trim()


def _trim() -> None:
    """Has the C library give back what readers freed: it would keep hundreds of megabytes."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
