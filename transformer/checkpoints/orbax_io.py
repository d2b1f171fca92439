"""How Orbax writes and reads checkpoints: durably, and with little memory beside the arrays."""

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from transformer import files
from transformer.upstream.orbax import Durable, LibraryPath

RESTORE_AT_ONCE = 64 * 2**20  # bytes read at a time at most, or one array if that is larger


class Preserve:
    """Orbax's question which checkpoints to preserve, passed on to a function of their steps."""

    def __init__(self, choose: Callable[[list[int]], Iterable[int]]):
        self._choose = choose

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [info.step for info in checkpoints]
        preserved = {*self._choose(steps)}
        return [step in preserved for step in steps]


class DiskManager:
    """A directory of checkpoints on a disk: written in the background by Orbax, which deletes old.

    Args:
        directory: `<workdir>/checkpoints`, whose parent exists.
        kept: the steps to keep of these.
        read_only: touch nothing (a trainer may be writing there).
    """

    def __init__(
        self, directory: Path, *, kept: Callable[[list[int]], Iterable[int]], read_only: bool
    ):
        self._directory, self._choose = directory, kept
        self._root = LibraryPath(directory.parent)
        self._folder = self._root.path / directory.name  # the same, for libraries
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=Preserve(self._kept),  # pyright: ignore[reportArgumentType]
                temporary_path_class=Durable,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
                lightweight_initialize=True,  # a damaged file must not keep others from being read
                enable_async_checkpointing=True,
            ),
        )

    def steps(self) -> list[int]:
        """Steps with a checkpoint, or one that is being written; rising."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, args: ocp.args.Composite) -> None:
        """Starts writing a checkpoint, once the one before is written."""
        if not self._manager.save(step, args=args, force=True):
            raise RuntimeError("Orbax did not take it")

    def item(self, step: int, name: str) -> epath.Path:
        """The path at which Orbax finds an item of a checkpoint."""
        return epath.Path(self._folder / str(step) / name)

    def delete(self, step: int) -> None:
        self._manager.delete(step)

    def move_away(self, step: int, name: str) -> None:
        """Moves a damaged checkpoint to `damaged/NAME` beside this directory; then `reload`."""
        folder = self._directory.parent / "damaged"
        folder.mkdir(exist_ok=True)
        (self._directory / str(step)).rename(folder / name)

    def reload(self) -> None:
        self._manager.reload()

    def reading(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Has a trainer keep a checkpoint while it is read."""
        return files.reading(self._folder / str(step))

    def named(self, message: object) -> str:
        """A library's message with the directory's own name in it."""
        return self._root.with_own_name(message)

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()
        self._root.close()

    def _kept(self, steps: list[int]) -> list[int]:
        # Several processes would not come to one answer; there a reader looks again.
        alone = jax.process_count() == 1
        in_use = [step for step in steps if alone and files.is_read(self._folder / str(step))]
        return [*self._choose(steps), *in_use]


def read(item: epath.Path, abstract: Any) -> Any:
    """The arrays of one item of a checkpoint, placed as `abstract` says; may raise anything.

    Each process reads its own part, without meeting the others: where one cannot, it can say so.
    """
    largest = max((x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract)), default=0)
    handler = ocp.StandardCheckpointHandler(
        # A whole number of bytes survives the way there and back only if it is rounded up.
        restore_concurrent_gb=(max(RESTORE_AT_ONCE, largest) + 1) / 10**9  # pyright: ignore
    )
    try:
        return handler.restore(item, args=ocp.args.StandardRestore(abstract))
    finally:
        handler.close()
        trim()


def trim() -> None:
    """Gives freed memory back to the system: the C library would keep hundreds of megabytes."""
    with contextlib.suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
