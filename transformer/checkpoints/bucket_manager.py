"""Checkpoints in a bucket: written by Orbax in the background, there once a manifest says so."""

import contextlib
from collections.abc import Callable, Iterable

import jax
import orbax.checkpoint as ocp
from etils import epath

from transformer.storage import BucketPath


class BucketManager:
    """What `DiskManager` does on a disk, for a folder in a bucket.

    There is no rename in a bucket, so a checkpoint is written under its owner's fencing token, and
    becomes `checkpoints/<step>` by one change of the folder's manifest, which is also the change
    that retires older ones. Orbax's own manager would count what it finds, whoever wrote it.

    Args:
        directory: `<workdir>/checkpoints`.
        kept: the steps to keep of these.
    """

    def __init__(self, directory: BucketPath, *, kept: Callable[[list[int]], Iterable[int]]):
        self._directory, self._kept = directory, kept
        self._saves = 0
        self._writing: tuple[int, str] | None = None  # step, and what its keys begin with
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(),
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._commit),
            file_options=ocp.options.FileOptions(skip_sync_file_validations=True),
        )

    def steps(self) -> list[int]:
        """Steps that others see, and the one that is being written; rising."""
        return sorted({*self._seen(), *([self._writing[0]] if self._writing else [])})

    def save(self, step: int, args: ocp.args.Composite) -> None:
        """Starts writing a checkpoint, once the one before is written."""
        self.wait()
        self._saves += 1  # in all processes alike
        key = self._directory.root.key_of_save(f"checkpoints/{self._saves}.{step}")
        self._writing = step, key
        self._checkpointer.save(str(self._directory.root.address / key), args=args)

    def _commit(self) -> None:
        """In the first process, once all have written all of a checkpoint."""
        assert self._writing
        step, key = self._writing
        seen = self._seen()
        keep = {*self._kept(sorted({*seen, step}))}
        self._directory.root.publish(
            folders={f"{self._directory.key}/{step}": key},
            without=[f"{self._directory.key}/{old}" for old in seen if old not in keep],
        )

    def _seen(self) -> list[int]:
        root = self._directory.root
        root.manifest(fresh=jax.process_index() > 0)  # what the first has changed, all see
        return [int(path.name) for path in self._directory.iterdir() if path.name.isdigit()]

    def item(self, step: int, name: str) -> epath.Path:
        """The path at which Orbax finds an item of a checkpoint. Raises FileNotFoundError."""
        return epath.Path((self._directory / str(step)).address()) / name

    def delete(self, step: int) -> None:
        if jax.process_index() == 0:
            (self._directory / str(step)).unlink(missing_ok=True)

    def move_away(self, step: int, name: str) -> None:
        """Gives a damaged checkpoint the name `damaged/NAME` in the run's folder."""
        (self._directory / str(step)).rename(self._directory.parent / "damaged" / name)

    def reload(self) -> None:
        """Looks again at what there is, which this manager always does."""

    def reading(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Does nothing: who reads a checkpoint that is retired meanwhile looks for another."""
        del step
        return contextlib.nullcontext()

    def named(self, message: object) -> str:
        return str(message)

    def wait(self) -> None:
        self._checkpointer.wait_until_finished()
        self._writing = None

    def close(self) -> None:
        self.wait()
        self._checkpointer.close()
