"""The training loop, top to bottom. What it calls is pure, or lives in a module of its own."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import jax
import numpy as np
import optax

from transformer.batch import Batch
from transformer.checkpoints.checkpoints import Checkpoints, open_checkpoints
from transformer.config import TrainingConfig
from transformer.data import Batches, Shape, prefetch
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.runtime import Exit
from transformer.training import memory, outlook
from transformer.training.development import Development, Stopping
from transformer.training.divergence import GoBack, Passed, Watch, pass_over
from transformer.training.metrics import FILE, Metrics
from transformer.training.optimizers import build_optimizer, build_schedule
from transformer.training.preemption import Interrupted, StopRequest
from transformer.training.step import StateFactory, make_train_step


def train(experiment: Experiment) -> Exit:
    """Trains until the configured end, going on from the run directory's last checkpoint.

    Returns:
        Exit.DONE, or Exit.PREEMPTED when a signal stopped it and all is saved.

    Raises:
        UserError: the configuration, the corpus or the run directory is not usable, a checkpoint
            cannot be written, or training diverged.
    """
    # What can be found wrong without touching the run directory, first.
    config = experiment.config
    schedule = build_schedule(config.optimizer.schedule, config.optimizer.schedule_options)
    optimizer = build_optimizer(
        config.optimizer.name, config.optimizer.options, schedule, config.training.clip_norm
    )
    experiment.check_mesh()
    experiment.check_corpus()
    new_factory = functools.partial(
        StateFactory, optimizer=optimizer, layout=experiment.layout, config=config.training
    )
    factory = new_factory(experiment.model)  # one that the mesh does not divide is refused here
    memory.refuse_too_large(factory.abstract)
    with contextlib.ExitStack() as stack:
        stack.enter_context(experiment.claim())
        checkpoints = open_checkpoints(experiment)
        stack.callback(checkpoints.close)
        if experiment.fit_vocabulary():
            factory = new_factory(experiment.model)
        run = _Run(experiment, factory, optimizer, schedule, checkpoints)
        stop = stack.enter_context(StopRequest(checkpoints))
        back = None
        while True:
            try:
                with memory.said_in_one_line(config.data.tokens_per_batch):
                    return run.go_on(stop, back)
            except GoBack as error:
                back = error.with_traceback(None)  # which holds the state that is left behind


@dataclass(frozen=True)
class _Carried:
    """What the host carries from step to step, as a checkpoint's meta holds it."""

    stopping: Stopping = dataclasses.field(default_factory=Stopping)
    passed: Passed = dataclasses.field(default_factory=Passed)
    evaluated: bool = True  # False: a signal stopped the evaluation that was due at this step
    seconds: float = 0.0  # trained for, over all the run's processes
    metrics_lines: int = 0  # of metrics.jsonl up to this step

    def as_meta(self, step: int) -> dict[str, Any]:
        content = dataclasses.asdict(self)
        return {"step": step, "clock": {"seconds": content.pop("seconds")}, **content}

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> Self:
        """Raises UserError where the meta is another version's."""
        try:
            passed = Passed(tuple(meta["passed"]["over"]), meta["passed"]["times"])
            stopping = Stopping(**meta["stopping"])
            lines = meta.get("metrics_lines", 0)  # which older ones do not say
            return cls(stopping, passed, meta["evaluated"], meta["clock"]["seconds"], lines)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the checkpoint at step {meta['step']} was written by another version of this "
                f"package ({error!r}): go on with that one, or take another --workdir"
            ) from error


class _Run:
    """A run's compiled parts, and the loop over its steps."""

    def __init__(
        self,
        experiment: Experiment,
        factory: StateFactory,
        optimizer: optax.GradientTransformation,
        schedule: optax.Schedule,
        checkpoints: Checkpoints,
    ):
        config, layout, model = experiment.config, experiment.layout, experiment.model
        self._experiment, self._factory, self._checkpoints = experiment, factory, checkpoints
        self._schedule = schedule
        self._batches = experiment.train_batches
        self._train_step = layout.jit(
            make_train_step(model, optimizer, schedule, config.training, config.divergence),
            donate_argnums=0,
            out_shardings=(factory.shardings, layout.replicated),
        )
        self._development = Development(experiment) if config.training.eval_every else None
        self._passed = Passed()
        self._shapes: set[Shape] = set()  # that the step is compiled for

    def go_on(self, stop: StopRequest, back: GoBack | None) -> Exit:
        """Trains from the newest whole checkpoint, or from the start.

        Args:
            stop: says when to.
            back: why this process left a later step for it, if it did.

        Raises:
            GoBack: a step went wrong, and is to be passed over.
        """
        config, checkpoints = self._experiment.config, self._checkpoints

        # Resume in this order: the newest whole checkpoint, then the metrics cut back to its step.
        # The data need nothing: batch = f(seed, step, batches passed over).
        if found := checkpoints.newest(self._factory.abstract, stopped=back is None):
            state, carried = found[0], _Carried.from_meta(found[1])
        else:
            state, carried = self._factory.create(config.seed), _Carried()
        step, steps = int(state.step), config.training.steps
        self._passed = max(self._passed, carried.passed, key=lambda passed: passed.times)
        if back:
            first = self._batches.without(self._passed.over).position(step)
            self._passed = pass_over(self._passed, back, first)
        batches = self._batches.without(self._passed.over)
        clock = _Clock(carried.seconds)
        stopping = carried.stopping

        with contextlib.ExitStack() as stack:
            metrics = stack.enter_context(
                Metrics(
                    self._experiment.workdir,
                    step=step,
                    total_steps=steps,
                    log_every=config.training.log_every,
                    evaluated=carried.evaluated,
                    minutes=config.training.minutes,
                )
            )
            has_checkpoints = lambda: bool(checkpoints.steps)  # noqa: E731
            watch = Watch(config.divergence, metrics, batches, self._passed, has_checkpoints)
            feed = _feed(self._experiment, batches, step, steps)
            stack.enter_context(contextlib.closing(feed))
            if back:
                metrics.event(step, "went back", **back.noted(self._passed))
                metrics.print(f"went back from step {back.step:,} to step {step:,}: {back.reason}")
            else:
                metrics.print(_describe(self._experiment, self._factory, batches, step))
                size = batches.plan.batches_per_epoch
                for warning in outlook.warnings(config, self._schedule, size, step):
                    metrics.print(warning)
                if (missing := carried.metrics_lines - metrics.lines) > 0:
                    metrics.print(
                        f"warning: {self._experiment.workdir}/{FILE} lacks {missing} of the "
                        f"{carried.metrics_lines} lines that it had at step {step:,}, as if it "
                        "had been deleted or cut: the run goes on without them"
                    )

            def due(score: float | None) -> bool:
                is_best = score is not None and stopping.best_step == step
                regular = step % config.checkpoints.every == 0
                return ended or regular or bool(is_best and config.checkpoints.keep_best)

            def carry(score: float | None, evaluated: bool = True) -> dict[str, Any]:
                now = _Carried(stopping, self._passed, evaluated, clock.seconds, metrics.lines)
                return {**now.as_meta(step), "stopped": not due(score)}

            def save(score: float | None = None, *, evaluated: bool = True) -> None:
                watch.settle()
                metrics.flush()
                checkpoints.save(state, carry(score, evaluated), score)

            def evaluate(development: Development) -> float:
                nonlocal stopping
                watch.settle()
                metrics.flush()
                with stop.interrupting():
                    found, samples = development(state.ema or state.params)
                metrics.evaluation(step, found, samples)
                score = found[config.early_stopping.metric]
                lower = config.early_stopping.lower_is_better
                stopping = stopping.after(score, step, lower_is_better=lower)
                if stopping.exhausted(config.early_stopping.patience):
                    metrics.event(step, "early stop", best_step=stopping.best_step)
                return score

            def leave() -> Exit:
                checkpoints.wait()
                metrics.print(f"stopped at step {step:,}, all saved: the same command goes on")
                return Exit.PREEMPTED

            ended = step >= steps
            if not carried.evaluated and self._development:
                try:
                    score = evaluate(self._development)
                except Interrupted:
                    return leave()
                metrics.flush()
                checkpoints.amend(step, carry(score), score)

            ended = (
                step >= steps
                or stopping.exhausted(config.early_stopping.patience)
                or 0.0 < 60.0 * config.training.minutes < clock.before
            )
            while not ended:
                try:
                    with stop.interrupting():  # a batch that takes long is not waited for
                        batch, waited = next(feed)
                except Interrupted:
                    save()
                    return leave()
                if (shape := batches.shape(step)) not in self._shapes:
                    metrics.compiling(step + 1, _named([shape]))
                state, values = self._train_step(state, batch)
                step += 1
                metrics.train(
                    step,
                    values.measured(),
                    tokens=batches.target_tokens(step - 1),
                    batch=batches.batch_digest(step - 1),
                    waited=waited,
                )
                watch.step(step, values.trouble, values.in_a_row)
                if not self._shapes:  # the first loss is said at once
                    metrics.flush()
                self._shapes.add(shape)

                ended = step >= steps
                if step % config.training.log_every == 0 and clock.over(config.training):
                    metrics.event(step, "out of time", minutes=config.training.minutes)
                    ended = True
                score = None
                if self._development and (ended or step % config.training.eval_every == 0):
                    try:
                        score = evaluate(self._development)
                    except Interrupted:
                        save(evaluated=False)
                        return leave()
                    ended = ended or stopping.exhausted(config.early_stopping.patience)
                if due(score):
                    save(score)
                if not ended and stop.requested(step):
                    save(score)
                    return leave()
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


def _feed(
    experiment: Experiment, batches: Batches, start: int, stop: int
) -> Generator[tuple[Batch, float]]:
    """Batches on the devices from step `start`, and how many seconds each was waited for."""
    layout = experiment.layout

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


def _describe(experiment: Experiment, factory: StateFactory, batches: Batches, step: int) -> str:
    """What is about to run, in three lines."""
    config = experiment.config
    mesh = " x ".join(f"{name} {size}" for name, size in experiment.layout.mesh.shape.items())
    total = sum(leaf.size for leaf in jax.tree.leaves(factory.abstract.params))
    where = f"on {jax.device_count()} {jax.devices()[0].device_kind} ({mesh})"
    return (
        f"run {config.run_name} in {experiment.workdir}\n"
        f"{config.model.family}, {total:,} parameters, {where}\n"
        f"{batches.plan.batches_per_epoch:,} batches an epoch, rows x source + target: "
        + _named(batches.plan.shapes)
        + (f"\ngoing on from step {step:,}" if step else "")
    )


def _named(shapes: Sequence[Shape]) -> str:
    """Rows, and positions of source and target, of each."""
    return ", ".join(f"{rows}x{source}+{target}" for rows, source, target in shapes)
