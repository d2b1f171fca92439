"""A run's checkpoints: written by Orbax in the background, whole or not at all, and checked.

A checkpoint is the directory `checkpoints/<step>` with items of its own: `params` (all that
translation reads), `ema` (their running average, where there is one), `rest` (step, seed, optimizer
state and what else the step carries) and `meta` (JSON: what the host carries, a digest of every
array, and a digest of the JSON itself). What is read and does not have its digest is never used:
training goes on from the newest checkpoint that is whole, and moves damaged ones to `damaged/`.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import multihost

from transformer import distributed, files
from transformer.checkpoints import old_names, orbax_io
from transformer.checkpoints.bucket_manager import BucketManager
from transformer.checkpoints.digests import digests
from transformer.checkpoints.orbax_io import DiskManager
from transformer.checkpoints.state import TrainState
from transformer.config import CheckpointsConfig
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.files import AnyPath
from transformer.models.parameters import Params
from transformer.storage import BucketPath

log = logging.getLogger(__name__)

Meta = dict[str, Any]
META = {"step", "stopped", "score", "digests"}  # in each meta, whatever else the host carries
# What the system says of files that are no longer what was written; the rest is for now.
DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO, errno.EBADMSG}
# What TensorStore says where a bucket is away, or not to be read: the checkpoint may be whole.
OUT_OF_REACH = ("retry attempts failed", "PERMISSION_DENIED", "UNAUTHENTICATED")


class Unusable(UserError):
    """A checkpoint cannot be used; the message says which and why."""


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
        directory: `<workdir>/checkpoints`, whose parent exists.
        config: how many to keep.
        lower_is_better: how the score that `save` is given compares.
        read_only: touch nothing (a trainer may be writing there).
    """

    def __init__(
        self,
        directory: AnyPath,
        config: CheckpointsConfig,
        *,
        lower_is_better: bool,
        read_only: bool = False,
    ):
        self.directory = directory.absolute()
        self._config = config
        self._sign = -1.0 if lower_is_better else 1.0
        self._scores: dict[int, float] = {}
        if isinstance(directory, BucketPath):
            self._manager = BucketManager(directory, kept=self._kept)
        else:
            self._manager = DiskManager(directory.absolute(), kept=self._kept, read_only=read_only)
        for step in self.steps:
            with contextlib.suppress(Unusable):  # said when it is to be used
                self._note_score(step, self.meta(step)["score"])

    @property
    def steps(self) -> list[int]:
        """Steps with a checkpoint, rising."""
        return self._manager.steps()

    @property
    def best_step(self) -> int | None:
        """The first step whose development score was best; None where none was scored."""
        return next(iter(self._ranked(self.steps)), None)

    def recent(self, count: int) -> list[int]:
        """The newest checkpoint and the regular ones before it, `count` in all.

        Regular ones fall on multiples of `checkpoints.every`: a run that was stopped on the way
        averages the same ones as a run that was not.
        """
        steps = self.steps
        return [*self._regular(steps[:-1]), *steps[-1:]][-count:]

    def _regular(self, steps: list[int]) -> list[int]:
        return [step for step in steps if step % self._config.every == 0]

    def _ranked(self, steps: list[int]) -> list[int]:
        """The steps with a score, best first, the earlier of two equals first."""
        scored = [step for step in steps if step in self._scores]
        return sorted(scored, key=lambda step: (-self._sign * self._scores[step], step))

    def _kept(self, steps: list[int]) -> list[int]:
        # Regular ones are counted apart, so that those of a stop or a best score displace none.
        regular = self._regular(steps)[-self._config.keep_last :]
        best = self._ranked(steps)[: self._config.keep_best]
        return [*regular, *best, *steps[-1:]]

    def _note_score(self, step: int, score: float | None) -> None:
        if score is not None and math.isfinite(score):
            self._scores[step] = score

    def save(self, state: TrainState, meta: Meta, score: float | None) -> None:
        """Starts writing; returns when the arrays are copied off the device's memory.

        Args:
            state: what training carries on the devices.
            meta: what it carries on the host, JSON; its `step` names the checkpoint, `stopped` says
                that it is there only because a signal stopped the run.
            score: what the development set gave at this step, if it was looked at.

        Raises:
            UserError: this checkpoint or the one before could not be written.
        """
        step = int(meta["step"])
        if step in self._manager.steps():
            return
        self._note_score(step, score)
        items = _items(state)
        meta = {**meta, "score": score, "digests": digests(items)}
        arrays = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        with self._writing(step):
            meta_args = ocp.args.JsonSave(_sealed(meta))
            self._manager.save(step, ocp.args.Composite(**arrays, meta=meta_args))

    def amend(self, step: int, meta: Meta, score: float | None) -> None:
        """Replaces the host's part of a checkpoint, for what was found out after it was saved."""
        self._note_score(step, score)
        known = self.meta(step)["digests"]
        content = _sealed({**meta, "score": score, "digests": known})
        distributed.first_then_all(
            "amend", lambda: files.write_json(self._meta_path(step), content)
        )

    def newest(
        self, abstract: TrainState, *, stopped: bool = True
    ) -> tuple[TrainState, Meta] | None:
        """The newest whole checkpoint, placed as `abstract` says; None where there is none yet.

        Without `stopped`, those that are there only because a signal stopped the run then are
        deleted first: a run that was never stopped has none to go back to.

        Damaged ones after it are named in the log, and moved to `damaged/` beside this directory,
        as training will come to their steps again.

        Raises:
            UserError: there are checkpoints, and none is whole; or the last cannot be written.
        """
        self.wait()  # Orbax counts one that is still being written
        if not stopped:
            self._delete_stopped()
        unusable: list[Unusable] = []
        damaged: list[int] = []
        for step in reversed(self.steps):
            try:
                restored = self.restore(abstract, step)
            except Unusable as error:
                log.warning("%s", error)
                unusable.append(error)
                damaged.append(step)
                continue
            if damaged:
                distributed.first_then_all("damaged", lambda: self._move_away(damaged))
                self._manager.reload()
                log.warning("going on from step %d, the newest whole checkpoint", step)
            return restored
        if unusable:
            raise UserError(
                f"none of the {len(unusable)} checkpoints in {self.directory} can be used; "
                f"{unusable[0]}; move that directory away to train from the start"
            )
        return None

    def _delete_stopped(self) -> None:
        for step in self.steps:
            with contextlib.suppress(Unusable):
                if self.meta(step)["stopped"]:
                    self._manager.delete(step)
        distributed.barrier("stopped checkpoints deleted")

    def _move_away(self, steps: list[int]) -> None:
        folder = self.directory.parent / "damaged"
        for step in steps:
            before = [old.name.split(".")[0] for old in folder.iterdir()] if folder.exists() else []
            number = before.count(str(step))
            self._manager.move_away(step, f"{step}.{number}" if number else str(step))

    def restore(self, abstract: TrainState, step: int) -> tuple[TrainState, Meta]:
        """The state at `step`, placed as `abstract` says, and the meta saved with it.

        Raises:
            Unusable: the checkpoint is damaged, or was made by another model.
        """
        wanted = _items(abstract)
        got, meta = self._read(step, wanted), self.meta(step)
        ema = got["ema"] if "ema" in wanted else ()
        return TrainState(params=got["params"], ema=ema, **got["rest"]), meta

    def params(self, abstract: Params, steps: list[int], item: str = "params") -> Params:
        """The mean of the parameters at these steps (AIAYN §6.1 averages the last checkpoints).

        `item` is "params", or "ema" for their running average.

        Raises:
            Unusable: one of the checkpoints is damaged, or was made by another model.
        """
        with contextlib.ExitStack() as stack:
            for step in steps:  # a trainer keeps them until they are read
                stack.enter_context(self._manager.reading(step))
            total = self._read(steps[0], {item: abstract})[item]
            for step in steps[1:]:
                more = self._read(step, {item: abstract})[item]
                total = _add(total, more)
        return _divide(total, np.float32(len(steps))) if len(steps) > 1 else total

    def meta(self, step: int) -> Meta:
        """The host's part of a checkpoint. Raises Unusable where it is damaged."""
        try:
            meta = files.read_json(self._meta_path(step))
        except files.Damaged as error:
            raise self._unusable(step, f"meta: {error}") from error
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            raise self._unusable(step, f"meta: {error.strerror}") from error
        if meta.get("seal") != _sealed(meta)["seal"] or not {*meta} >= META:
            raise self._unusable(step, "meta: it is not what was written")
        return meta

    def _meta_path(self, step: int) -> AnyPath:
        return self.directory / str(step) / "meta" / "metadata"

    def _read(self, step: int, wanted: dict[str, Any]) -> dict[str, Any]:
        """Items of a checkpoint by name, checked; all processes come to the same verdict."""
        got, failed, is_old = {}, None, False
        try:
            known = self.meta(step)["digests"]
            is_old = old_names.has_old_names(known)
            for name, abstract in wanted.items():
                like = old_names.with_old_names(abstract) if is_old else abstract
                got[name] = orbax_io.read(self._manager.item(step, name), like)
        except MemoryError:
            raise
        except OSError as error:
            if error.errno is not None and error.errno not in DAMAGE:
                raise
            failed = self._unusable(step, error)
        except Unusable as error:
            failed = error
        except UserError:  # a bucket that is out of reach
            raise
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            failed = self._unusable(step, error)
            if any(reason in str(error) for reason in OUT_OF_REACH):
                raise UserError(f"{failed}: mend that, and start the same command again") from error
        if not distributed.all_true(failed is None):
            raise failed or self._unusable(step, "another process cannot read it")
        for name, digest in digests(got).items():
            if known.get(name) != digest:
                raise self._unusable(step, f"{name} is not what was written")
        return old_names.with_new_names(got) if is_old else got

    def _unusable(self, step: int, reason: object) -> Unusable:
        why = " ".join(self._manager.named(reason).split())[:200] or type(reason).__name__
        return Unusable(f"checkpoint {self.directory / str(step)} cannot be used ({why})")

    @contextlib.contextmanager
    def _writing(self, step: int | None = None):
        """Says in one line what cannot be written, wherever Orbax notices it."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            which = "the last checkpoint" if step is None else f"the checkpoint at step {step}"
            reason = " ".join(self._manager.named(error).split())
            remedy = "mend that"
            if "No space left" in reason or "Disk quota" in reason or "no space" in reason:
                reason, remedy = "no space left on the disk", "make room there"
            raise UserError(
                f"{which}, or the one before, cannot be written to {self.directory} "
                f"({reason[:200]}): {remedy}; the older ones are whole, and the same command goes "
                "on from the newest"
            ) from error

    def are_there(self, steps: list[int]) -> bool:
        """Whether all of these directories still are."""
        return all((self.directory / str(step)).exists() for step in steps)

    def reached_preemption(self, step: int) -> bool:
        """Whether any process has been told to stop; the same answer in all of them."""
        return multihost.reached_preemption(step)

    def wait(self) -> None:
        """Returns when everything that was saved is on disk. Raises UserError if it cannot be."""
        with self._writing():
            self._manager.wait()

    def close(self) -> None:
        with self._writing():
            self._manager.close()


def open_checkpoints(experiment: Experiment, *, read_only: bool = False) -> Checkpoints:
    """The checkpoints of an experiment's run directory."""
    config = experiment.config
    return Checkpoints(
        experiment.workdir / "checkpoints",
        config.checkpoints,
        lower_is_better=config.early_stopping.lower_is_better,
        read_only=read_only,
    )


# Whole trees: leaf by leaf each shape would be a program of its own.
@functools.partial(jax.jit, donate_argnums=0)
def _add(total: Params, more: Params) -> Params:
    return jax.tree.map(jnp.add, total, more)


@functools.partial(jax.jit, donate_argnums=0)
def _divide(total: Params, count: Any) -> Params:
    return jax.tree.map(lambda x: x / count, total)


def _sealed(meta: Meta) -> Meta:
    """Adds a digest of the meta's own content."""
    content = {key: value for key, value in meta.items() if key != "seal"}
    text = json.dumps(content, sort_keys=True)
    return {**content, "seal": hashlib.sha256(text.encode()).hexdigest()}


def _items(state: TrainState) -> dict[str, Any]:
    """A state's parts as they are stored; `ema` only where there is one."""
    rest = {name: value for name, value in vars(state).items() if name not in ("params", "ema")}
    items = {"params": state.params, "rest": rest}
    return items | ({"ema": state.ema} if jax.tree.leaves(state.ema) else {})
