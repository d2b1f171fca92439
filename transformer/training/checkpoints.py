"""A run's checkpoints: written by Orbax in the background, whole or not at all.

A checkpoint is the directory `checkpoints/<step>` with items of its own: `params` (all that
translation reads), `ema` (their running average, where there is one), `rest` (step, seed, optimizer
state) and `meta` (JSON: what the host carries, such as early stopping's best score).
"""

import contextlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

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
        policies: list[Any] = [LatestN(config.keep_last)]
        if config.keep_best:
            policies.append(
                BestN(
                    get_metric_fn=lambda metrics: metrics["score"],
                    reverse=lower_is_better,
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self.directory = directory.absolute()
        self._lower_is_better = lower_is_better
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(policies),
                best_fn=lambda metrics: metrics["score"],  # without it no scores are written
                best_mode="min" if lower_is_better else "max",
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
        sign = 1.0 if self._lower_is_better else -1.0
        scored = [(sign * m["score"], s) for s in self.steps if (m := self._manager.metrics(s))]
        return min(scored)[1] if scored else None

    def save(self, state: TrainState, meta: dict[str, Any], score: float | None) -> None:
        """Starts writing; returns when the arrays are copied off the device's memory."""
        step = int(meta["step"])
        if step in self._manager.all_steps():
            return
        items = {name: ocp.args.StandardSave(item) for name, item in _items(state).items()}
        self._manager.save(
            step,
            args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta)),
            metrics=None if score is None else {"score": score},
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

    def params(self, abstract: Params, steps: list[int]) -> Params:
        """The mean of the parameters at these steps (AIAYN §6.1 averages the last checkpoints)."""
        restore = {"params": ocp.args.StandardRestore(abstract)}
        total = self._read(steps[0], restore)["params"]
        for step in steps[1:]:
            total = jax.tree.map(jnp.add, total, self._read(step, restore)["params"])
        return jax.tree.map(lambda x: x / len(steps), total) if len(steps) > 1 else total

    def ema(self, abstract: Params, step: int) -> Params:
        """The running average of the parameters at `step`."""
        return self._read(step, {"ema": ocp.args.StandardRestore(abstract)})["ema"]

    def _read(self, step: int, args: dict[str, Any]) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files
            reason = str(error).strip().splitlines()[0][:200]
            raise UserError(
                f"checkpoint {self.directory / str(step)} cannot be read ({reason}): it is damaged "
                "or of another model; delete that directory to go on from the one before"
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
        lower_is_better=config.early_stopping.metric == "loss",
        read_only=read_only,
    )


def trained_parameters(experiment: Experiment, which: str = "average") -> tuple[Params, str]:
    """Parameters of a run for evaluation, and a line that says which they are.

    Args:
        experiment: a run's, `Experiment.open(workdir)`.
        which: "average" (of the last `checkpoints.average`; the running average where
            training.ema_decay keeps one), "last", "best", or a step's number.

    Raises:
        UserError: there is no such checkpoint, or it is damaged.
    """
    config = experiment.config
    with contextlib.closing(open_checkpoints(experiment, read_only=True)) as checkpoints:
        steps, best = checkpoints.steps, checkpoints.best_step
        if not steps:
            raise UserError(f"{experiment.workdir} has no checkpoint yet: train it first")
        if which == "average" and config.training.ema_decay > 0.0:
            got = checkpoints.ema(experiment.abstract_params, steps[-1])
            return got, f"the running average at step {steps[-1]:,}"
        recent = steps[-config.checkpoints.average :]
        choices = {"average": recent, "last": steps[-1:], "best": [best] if best else []}
        chosen = choices.get(which) or [step for step in steps if str(step) == which]
        if not chosen:
            raise UserError(
                f"{experiment.workdir} has no checkpoint {which!r}: it has average, last"
                f"{', best' if best else ''} and steps {', '.join(map(str, steps))}"
            )
        got = checkpoints.params(experiment.abstract_params, chosen)
    if len(chosen) == 1:
        return got, f"the checkpoint at step {chosen[0]:,}"
    return got, f"the mean of {len(chosen)} checkpoints, steps {chosen[0]:,} to {chosen[-1]:,}"


def _items(state: TrainState) -> dict[str, Any]:
    """A state's parts as they are stored; `ema` only where there is one."""
    rest = {"step": state.step, "seed": state.seed, "opt_state": state.opt_state}
    items = {"params": state.params, "rest": rest}
    return items | ({"ema": state.ema} if jax.tree.leaves(state.ema) else {})
