"""How Orbax writes and reads checkpoints: durably, and with little memory beside the arrays."""

import asyncio
import contextlib
import ctypes
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore
from etils import epath
from orbax.checkpoint._src.metadata import checkpoint as step_metadata
from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath

from transformer import files
from transformer.errors import UserError

RESTORE_AT_ONCE = 64 * 2**20  # bytes read at a time at most, or one array if that is larger
# Paths that Orbax, epath and TensorStore read as we mean them. Elsewhere brackets are a pattern, a
# backslash escapes, a colon ends a scheme, and /gs, /s3 ... are buckets.
PLAIN = re.compile(r"(?!/(gs|s3|az|hf)/)/[\w./ @%+=,~-]*", re.ASCII)
OPEN_FILES = Path("/proc/self/fd")


class LibraryPath:
    """An existing folder under a path that every library reads as we mean it.

    `path` is the folder's own where that is plain. Elsewhere it goes through the folder's file
    descriptor, which no pattern, scheme or encoding can change; `close` gives that back.

    Raises:
        UserError: the path is not plain and this system has no such way to it.
    """

    def __init__(self, folder: Path):
        self._own, self._descriptor = str(folder.absolute()), -1
        self.path = Path(self._own)
        if PLAIN.fullmatch(self._own) and ".orbax-checkpoint-tmp" not in self._own:
            return
        if not OPEN_FILES.exists():
            raise UserError(
                f"{folder}: on this system the path of a run may have letters, digits and "
                "' @%+=,~-_.' alone: take another --workdir"
            )
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.path = OPEN_FILES / str(self._descriptor)

    def with_own_name(self, message: object) -> str:
        """A library's message with the folder's own name in it."""
        return str(message).replace(str(self.path), self._own)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Durable(AtomicRenameTemporaryPath):
    """Orbax's temporary directory, made durable before the rename that makes it count.

    What was written is read back: a checkpoint whose arrays nobody can find gets no name. Every
    file and folder is synced, then the directory gets its name, then that name is synced: after a
    power cut a checkpoint is there whole, or it is not there. Orbax renames at once.
    """

    async def finalize(self) -> None:
        if store := self._checkpoint_metadata_store:
            path = step_metadata.step_metadata_file_path(self.get())
            store.update(file_path=path, commit_timestamp_nsecs=time.time_ns())
            await asyncio.to_thread(store.wait_until_finished)
        final = Path(self.get_final())
        await asyncio.to_thread(require_readable, Path(self.get()))
        await asyncio.to_thread(_sync_tree, Path(self.get()))
        files.sync(final.parent.parent)  # the names of what else the run needs: config, tokenizer
        os.rename(self.get(), final)
        files.sync(final.parent)


def require_readable(step: Path) -> None:
    """Reads back what a checkpoint says of itself.

    Raises:
        OSError: an item's list of arrays cannot be read, or lacks one that was written.
    """
    for described in step.glob("*/_METADATA"):
        item = described.parent
        try:
            leaves = files.read_json(described)["tree_metadata"].values()
            names = {name.decode() for name in _arrays(item).list().result()}
        except (files.Damaged, KeyError, AttributeError, ValueError) as error:
            raise OSError(f"{item} cannot be read back: {error}") from error
        for leaf in leaves:
            name = ".".join(str(part["key"]) for part in leaf["key_metadata"])
            is_array = leaf["value_metadata"]["value_type"] == "jax.Array"
            if is_array and f"{name}/.zarray" not in names:
                raise OSError(f"{item} cannot be read back: it has no array {name}")


def _arrays(item: Path) -> tensorstore.KvStore:
    """The database that an item's arrays are in."""
    base = {"driver": "file", "path": f"{item}/"}
    return tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            files.sync(Path(parent) / name)
        files.sync(Path(parent))


class Preserve:
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
