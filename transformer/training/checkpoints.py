"""A run's checkpoints: written by Orbax in the background, whole or not at all.

A checkpoint is the directory `checkpoints/<step>` with items of its own: `params` (all that
translation reads), `ema` (their running average, where there is one), `rest` (step, seed, optimizer
state) and `meta` (JSON: what the host carries, such as early stopping's best score).
"""

import contextlib
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, EveryNSteps, LatestN

from transformer.config import CheckpointsConfig
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.models.parameters import Params
from transformer.training.step import TrainState


class Checkpoints:
    """The checkpoints of one run directory.

    Args:
        directory: `<workdir>/checkpoints`.
        config: how many to keep.
        lower_is_better: how the score that `save` is given compares.
        read_only: touch nothing (a trainer may be writing there).
    """

    def __init__(
        self,
        directory: Path,
        config: CheckpointsConfig,
        *,
        lower_is_better: bool,
        read_only: bool = False,
    ):
        # Regular ones are counted apart, so that those of a stop or a best score displace none.
        regular = EveryNSteps(config.every, max_to_keep=config.keep_last)
        policies: list[Any] = [regular, LatestN(1)]
        if config.keep_best:
            policies.append(
                BestN(
                    get_metric_fn=lambda metrics: metrics["rank"],
                    reverse=False,
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self.directory = directory.absolute()
        self._sign = -1.0 if lower_is_better else 1.0
        self._every = config.every
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(policies),
                best_fn=lambda metrics: metrics["rank"],  # without it no scores are written
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
                enable_async_checkpointing=True,
            ),
        )

    @property
    def steps(self) -> list[int]:
        """Steps with a whole checkpoint, rising."""
        return sorted(self._manager.all_steps())

    @property
    def best_step(self) -> int | None:
        """The first step whose development score was best; None where none was scored."""
        ranked = [(m["rank"], s) for s in self.steps if (m := self._manager.metrics(s))]
        return max(ranked)[1] if ranked else None

    def recent(self, count: int) -> list[int]:
        """The newest checkpoint and the regular ones before it, `count` in all.

        Regular ones fall on multiples of `checkpoints.every`: a run that was stopped on the way
        averages the same ones as a run that was not.
        """
        steps = self.steps
        regular = [step for step in steps[:-1] if step % self._every == 0]
        return [*regular, *steps[-1:]][-count:]

    def save(self, state: TrainState, meta: dict[str, Any], score: float | None) -> None:
        """Starts writing; returns when the arrays are copied off the device's memory."""
        step = int(meta["step"])
        if step in self._manager.all_steps():
            return
        metrics = None
        if score is not None and math.isfinite(score):
            metrics = {"rank": [self._sign * score, -step]}
        items = {name: ocp.args.StandardSave(item) for name, item in _items(state).items()}
        self._manager.save(
            step,
            args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta)),
            metrics=metrics,
            force=True,
        )

    def restore(self, abstract: TrainState, step: int) -> tuple[TrainState, dict[str, Any]]:
        """The state at `step`, placed as `abstract` says, and the meta saved with it.

        Raises:
            UserError: the checkpoint is damaged, or was made by another model.
        """
        items = {name: ocp.args.StandardRestore(item) for name, item in _items(abstract).items()}
        got = self._read(step, {**items, "meta": ocp.args.JsonRestore()})
        ema = got["ema"] if "ema" in items else ()
        return TrainState(params=got["params"], ema=ema, **got["rest"]), got["meta"]

    def params(self, abstract: Params, steps: list[int], item: str = "params") -> Params:
        """The mean of the parameters at these steps (AIAYN §6.1 averages the last checkpoints).

        `item` is "params", or "ema" for their running average.
        """
        restore = {item: ocp.args.StandardRestore(abstract)}
        total = self._read(steps[0], restore)[item]
        for step in steps[1:]:
            total = jax.tree.map(jnp.add, total, self._read(step, restore)[item])
        return jax.tree.map(lambda x: x / len(steps), total) if len(steps) > 1 else total

    def _read(self, step: int, args: dict[str, Any]) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except (MemoryError, PermissionError):
            raise
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
            if "RESOURCE_EXHAUSTED" in str(error):
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(
                f"checkpoint {self.directory / str(step)} cannot be read ({reason}): if it is "
                "damaged, move that directory away to go on from the one before"
            ) from error

    def reached_preemption(self, step: int) -> bool:
        """Whether any process has been told to stop; the same answer in all of them."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
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


def trained_parameters(experiment: Experiment, which: str = "average") -> tuple[Params, str]:
    """Parameters of a run for evaluation, and a line that says which they are.

    Args:
        experiment: a run's, `Experiment.open(workdir)`.
        which: "average" (of the last `checkpoints.average`), "last", "best", or a step's number.
            Where training.ema_decay keeps a running average, it is what is read, and "average" is
            "last".

    Raises:
        UserError: there is no such checkpoint, or it is damaged.
    """
    config = experiment.config
    with contextlib.closing(open_checkpoints(experiment, read_only=True)) as checkpoints:
        steps, best = checkpoints.steps, checkpoints.best_step
        if not steps:
            raise UserError(f"{experiment.workdir} has no checkpoint yet: train it first")
        running = config.training.ema_decay > 0.0
        recent = checkpoints.recent(1 if running else config.checkpoints.average)
        choices = {"average": recent, "last": steps[-1:], "best": [best] if best else []}
        chosen = choices.get(which) or [step for step in steps if str(step) == which]
        if not chosen:
            raise UserError(
                f"{experiment.workdir} has no checkpoint {which!r}: it has average, last"
                f"{', best' if best else ''} and steps {', '.join(map(str, steps))}"
            )
        item = "ema" if running else "params"
        got = checkpoints.params(experiment.abstract_params, chosen, item)
    if len(chosen) == 1:
        return got, f"the {'running average' if running else 'checkpoint'} at step {chosen[0]:,}"
    return got, f"the mean of {len(chosen)} checkpoints, steps {chosen[0]:,} to {chosen[-1]:,}"


def _items(state: TrainState) -> dict[str, Any]:
    """A state's parts as they are stored; `ema` only where there is one."""
    rest = {"step": state.step, "seed": state.seed, "opt_state": state.opt_state}
    items = {"params": state.params, "rest": rest}
    return items | ({"ema": state.ema} if jax.tree.leaves(state.ema) else {})
