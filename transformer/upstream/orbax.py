"""Paths that Orbax and its libraries read as we mean them, and a rename that is durable.

Orbax globs on whole paths, epath takes `/gs/` and `x:` for schemes, and a checkpoint gets its name
before it is on the disk. To be deleted when Orbax writes under any path, syncs before it renames,
and reads back what it wrote.
"""

import asyncio
import os
import re
import time
from pathlib import Path

import tensorstore
from orbax.checkpoint._src.metadata import checkpoint as step_metadata
from orbax.checkpoint._src.path.atomicity import AtomicRenameTemporaryPath

from transformer import files
from transformer.errors import UserError

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
