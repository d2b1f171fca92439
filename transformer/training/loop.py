"""The training loop, top to bottom. What it calls is pure, or lives in a module of its own."""

import contextlib
import dataclasses
import time
from collections.abc import Generator

import jax
import numpy as np
import optax

from transformer.batch import Batch
from transformer.config import TrainingConfig
from transformer.data import prefetch
from transformer.experiment import Experiment
from transformer.runtime import Exit
from transformer.training.checkpoints import Checkpoints, open_checkpoints
from transformer.training.development import Development, Stopping
from transformer.training.metrics import Metrics
from transformer.training.optimizers import build_optimizer, build_schedule
from transformer.training.preemption import StopRequest
from transformer.training.step import StateFactory, TrainState, make_train_step


def train(experiment: Experiment) -> Exit:
    """Trains until the configured end, going on from the run directory's last checkpoint.

    Returns:
        Exit.DONE, or Exit.PREEMPTED when a signal stopped it and all is saved.

    Raises:
        UserError: the configuration, the corpus or the run directory is not usable.
    """
    # What can be found wrong without touching the run directory, first.
    config = experiment.config
    schedule = build_schedule(config.optimizer.schedule, config.optimizer.schedule_options)
    optimizer = build_optimizer(
        config.optimizer.name, config.optimizer.options, schedule, config.training.clip_norm
    )
    experiment.check_mesh()
    experiment.check_corpus()
    _ = experiment.abstract_params  # a model that the mesh does not divide is refused here
    with contextlib.ExitStack() as stack:
        stack.enter_context(experiment.claim())
        checkpoints = open_checkpoints(experiment)
        stack.callback(checkpoints.close)
        stop = stack.enter_context(StopRequest(checkpoints))
        return _train(experiment, optimizer, schedule, checkpoints, stop)


def _train(
    experiment: Experiment,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    checkpoints: Checkpoints,
    stop: StopRequest,
) -> Exit:
    config, layout, model = experiment.config, experiment.layout, experiment.model
    batches = experiment.train_batches
    factory = StateFactory(model, optimizer, layout, config.training)
    train_step = layout.jit(
        make_train_step(model, optimizer, schedule, config.training),
        donate_argnums=0,
        out_shardings=(factory.shardings, layout.replicated),
    )
    development = Development(experiment) if config.training.eval_every else None

    # Resume in this order: the newest whole checkpoint, then the metrics cut back to its step.
    # The data need nothing: batch = f(seed, step).
    state, stopping, clock = _resume_or_create(checkpoints, factory, config.seed)
    step, steps = int(state.step), config.training.steps

    with contextlib.ExitStack() as stack:
        metrics = stack.enter_context(
            Metrics(
                experiment.workdir,
                step=step,
                total_steps=steps,
                log_every=config.training.log_every,
            )
        )
        feed = stack.enter_context(contextlib.closing(_feed(experiment, step, steps)))
        metrics.print(_describe(experiment, step))

        def save(score: float | None = None) -> None:
            metrics.flush()
            meta = {"step": step, "stopping": dataclasses.asdict(stopping)}
            checkpoints.save(state, {**meta, "clock": {"seconds": clock.seconds}}, score)

        ended = (
            step >= steps
            or stopping.exhausted(config.early_stopping.patience)
            or 0.0 < 60.0 * config.training.minutes < clock.before
        )
        while not ended:
            batch, waited = next(feed)
            state, values = train_step(state, batch)
            step += 1
            metrics.train(step, vars(values), tokens=batches.target_tokens(step - 1), waited=waited)

            ended = step >= steps
            if step % config.training.log_every == 0 and clock.over(config.training):
                metrics.event(step, "out of time", minutes=config.training.minutes)
                ended = True
            score = None
            if development and (ended or step % config.training.eval_every == 0):
                found, samples = development(state.ema or state.params)
                metrics.evaluation(step, found, samples)
                score = found[config.early_stopping.metric]
                stopping = stopping.after(
                    score, step, lower_is_better=config.early_stopping.lower_is_better
                )
                if stopping.exhausted(config.early_stopping.patience):
                    metrics.event(step, "early stop", best_step=stopping.best_step)
                    ended = True
            is_best = score is not None and stopping.best_step == step
            if (
                ended
                or step % config.checkpoints.every == 0
                or (is_best and config.checkpoints.keep_best)
            ):
                save(score)
            if not ended and stop.requested(step):
                save(score)
                checkpoints.wait()
                metrics.print(f"stopped at step {step:,}, all saved: the same command goes on")
                return Exit.PREEMPTED
        checkpoints.wait()
    return Exit.DONE


class _Clock:
    """Seconds that a run has been trained for, over all its processes."""

    def __init__(self, before: float):
        self.before = before  # this one, as the checkpoint has it
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self._began

    def over(self, training: TrainingConfig) -> bool:
        """Whether training.minutes are over, by the clock of process 0; all must ask at once."""
        if not training.minutes:
            return False
        over = self.seconds > 60.0 * training.minutes
        if jax.process_count() == 1:
            return over
        from jax.experimental import multihost_utils

        return bool(multihost_utils.broadcast_one_to_all(np.asarray(over)))


def _resume_or_create(
    checkpoints: Checkpoints, factory: StateFactory, seed: int
) -> tuple[TrainState, Stopping, _Clock]:
    if not checkpoints.steps:
        return factory.create(seed), Stopping(), _Clock(0.0)
    state, meta = checkpoints.restore(factory.abstract, checkpoints.steps[-1])
    return state, Stopping(**meta["stopping"]), _Clock(meta["clock"]["seconds"])


def _feed(experiment: Experiment, start: int, stop: int) -> Generator[tuple[Batch, float]]:
    """Batches on the devices from step `start`, and how many seconds each was waited for."""
    layout, batches = experiment.layout, experiment.train_batches

    def make(step: int) -> Batch:
        rows = batches.shape(step)[0]
        return layout.place(batches.rows(step, *layout.local_rows(rows)), rows)

    with prefetch(make, start, stop, experiment.config.data.prefetch) as ready:
        while True:
            before = ready.waited
            batch = next(ready, None)
            if batch is None:
                return
            yield batch, ready.waited - before


def _describe(experiment: Experiment, step: int) -> str:
    """What is about to run, in three lines."""
    config, batches = experiment.config, experiment.train_batches
    shapes = ", ".join(f"{r}x{s}+{t}" for r, s, t in batches.plan.shapes)
    mesh = " x ".join(f"{name} {size}" for name, size in experiment.layout.mesh.shape.items())
    total = sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_params))
    where = f"on {jax.device_count()} {jax.devices()[0].device_kind} ({mesh})"
    return (
        f"run {config.run_name} in {experiment.workdir}\n"
        f"{config.model.family}, {total:,} parameters, {where}\n"
        f"{batches.plan.batches_per_epoch:,} batches an epoch, rows x source + target: {shapes}"
        + (f"\ngoing on from step {step:,}" if step else "")
    )
