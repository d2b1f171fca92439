"""The training loop, top to bottom. What it calls is pure, or lives in a module of its own."""

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from transformer import run_directory, runtime
from transformer.attention import served
from transformer.batch import Batch
from transformer.checkpoints.checkpoints import Checkpoints, open_checkpoints
from transformer.config import Config
from transformer.data import Batches, Shape, prefetch
from transformer.errors import UserError
from transformer.evaluation import Metric, checked_metrics
from transformer.experiment import Experiment
from transformer.losses import PositionLoss, loss_of_positions
from transformer.runtime import Exit
from transformer.training import memory, outlook
from transformer.training.callbacks import Callback
from transformer.training.dev_evaluation import DevEvaluator
from transformer.training.divergence import DivergenceMonitor, Rollback, SkippedBatches
from transformer.training.host_state import Clock, HostState
from transformer.training.metrics import FILE, Metrics
from transformer.training.preemption import Interrupted, StopRequest
from transformer.training.program import TrainProgram, build_program


def train(
    experiment: Experiment | Config,
    workdir: str | os.PathLike[str] | None = None,
    *,
    optimizer: optax.GradientTransformation | None = None,
    loss: PositionLoss | None = None,
    metrics: Sequence[Metric] = (),
    callbacks: Sequence[Callback] = (),
) -> Exit:
    """Trains until the configured end, going on from the run directory's last checkpoint.

        transformer.train(Config.load("experiments/casa_roja.py"), "runs/mine")

    Args:
        experiment: what to train; or its configuration.
        workdir: of a configuration: the run's directory; None: runs/NAME, as `transformer train`.
        optimizer: in place of the configured one, learning rate and all; the schedule is still
            what `metrics.jsonl` says of the rate.
        loss: in place of the configured cross-entropy: of float32 logits [B, T, V] and labels
            [B, T], the loss of each position [B, T]. It is computed chunk by chunk.
        metrics: further measures of the development set's translations, by their names
            (`__name__`), beside `evaluation.metrics`; each evaluation then translates it.
        callbacks: see `training.callbacks.Callback`.

    Returns:
        Exit.DONE, or Exit.PREEMPTED when a signal stopped it and all is saved.

    Raises:
        UserError: the configuration, the corpus or the run directory is not usable, a checkpoint
            cannot be written, or training diverged.
    """
    if isinstance(experiment, Config):
        runtime.prepare()
        experiment = Experiment(experiment, workdir or Path("runs") / experiment.run_name)
    # What can be found wrong without touching the run directory, first.
    checked_metrics(metrics)
    if not isinstance(callbacks, Sequence) or not all(isinstance(c, Callback) for c in callbacks):
        raise UserError(f"callbacks is {callbacks!r}; give a list of training.Callback")
    if loss is not None and not callable(loss):
        raise UserError(f"loss is {loss!r}, which is no function of logits and labels")
    config, layout = experiment.config, experiment.layout
    experiment.check_mesh()
    experiment.data.check_corpus()
    summed_loss = loss_of_positions(loss) if loss else None
    build = functools.partial(
        build_program, config, layout=layout, optimizer=optimizer, loss=summed_loss
    )
    program = build(model=experiment.model)
    memory.refuse_too_large(program.factory.abstract)
    with contextlib.ExitStack() as stack:
        stack.enter_context(experiment.acquire())
        for name, given in (("loss", loss), ("optimizer", optimizer and optimizer.update)):
            run_directory.require_same(
                experiment.workdir, name, _name(given), f"the {name} that train was called with"
            )
        checkpoints = open_checkpoints(experiment)
        stack.callback(checkpoints.close)
        if experiment.fit_vocabulary():
            program = build(model=experiment.model)
        stop = stack.enter_context(StopRequest(checkpoints))
        evaluator = None
        if config.training.eval_every:
            evaluator = DevEvaluator(experiment, metrics, summed_loss)
        loop = TrainingLoop(experiment, program, checkpoints, stop, evaluator, callbacks)
        rollback = None
        while True:
            try:
                with memory.said_in_one_line(config.data.tokens_per_batch):
                    return loop.run(rollback)
            except Rollback as error:
                rollback = error.with_traceback(None)  # which holds the state left behind


class TrainingLoop:
    """The loop over a run's steps, and what it keeps between them."""

    def __init__(
        self,
        experiment: Experiment,
        program: TrainProgram,
        checkpoints: Checkpoints,
        stop: StopRequest,
        evaluator: DevEvaluator | None,
        callbacks: Sequence[Callback] = (),
    ):
        self._experiment, self._config = experiment, experiment.config
        self._program, self._checkpoints, self._stop = program, checkpoints, stop
        self._all_batches = experiment.train_batches
        self._evaluator, self._callbacks = evaluator, callbacks
        self._skipped = SkippedBatches()
        self._compiled: set[Shape] = set()  # shapes of batches that the step is compiled for

    def run(self, rollback: Rollback | None) -> Exit:
        """Trains from the newest whole checkpoint, or from the start.

        Args:
            rollback: why this process left a later step, if it did.

        Raises:
            Rollback: a step went wrong; its batches are to be skipped.
        """
        steps = self._config.training.steps
        self._restore(rollback)
        with contextlib.ExitStack() as stack:
            self._open(stack)
            self._announce(rollback)
            for callback in self._callbacks:
                callback.on_start(self._step)
            self._ended = self._step >= steps
            if not self._host.evaluated and self._evaluator:  # a signal stopped it
                try:
                    score = self._evaluate()
                except Interrupted:
                    return self._leave()
                self._metrics.flush()
                self._checkpoints.amend(self._step, self._meta(score), score)
            self._ended = self._has_nothing_left()
            while not self._ended:
                try:
                    with self._stop.interrupting():  # a batch that takes long is not waited for
                        batch, waited = next(self._feed)
                except Interrupted:
                    self._save(None)
                    return self._leave()
                self._take_step(batch, waited)
                self._ended = self._step >= steps or self._is_out_of_time()
                score = None
                if self._evaluation_is_due():
                    try:
                        score = self._evaluate()
                    except Interrupted:
                        self._save(None, evaluated=False)
                        return self._leave()
                    self._ended = self._ended or self._stops_early()
                if self._checkpoint_is_due(score):
                    self._save(score)
                if not self._ended and self._stop.requested(self._step):
                    self._save(score)
                    return self._leave()
            self._checkpoints.wait()
            self._end(done=True)
        return Exit.DONE

    # Beginning ------------------------------------------------------------------------------------

    def _restore(self, rollback: Rollback | None) -> None:
        """Takes up the newest whole checkpoint; the data need nothing but its step.

        batch = f(seed, step, skipped batches).
        """
        self._state: Any = None  # memory is for the one that comes
        factory = self._program.factory
        restored = self._checkpoints.newest(factory.abstract, stopped=rollback is None)
        if restored:
            self._state, self._host = restored[0], HostState.from_meta(restored[1])
        else:
            self._state, self._host = factory.create(self._config.seed), HostState()
        self._step = int(self._state.step)
        self._skipped = max(self._skipped, self._host.skipped, key=lambda s: s.rollbacks)
        if rollback:
            first = self._all_batches.without(self._skipped.batches).position(self._step)
            self._skipped = self._skipped.after(rollback, first)
        self._batches = self._all_batches.without(self._skipped.batches)
        self._early_stopping = self._host.early_stopping
        self._clock = Clock(self._host.seconds)

    def _open(self, stack: contextlib.ExitStack) -> None:
        """Opens what is written and read while training; the metrics are cut back to the step."""
        training = self._config.training
        self._metrics = stack.enter_context(
            Metrics(
                self._experiment.workdir,
                step=self._step,
                total_steps=training.steps,
                log_every=training.log_every,
                evaluated=self._host.evaluated,
                minutes=training.minutes,
            )
        )
        self._monitor = DivergenceMonitor(
            self._config.divergence,
            self._metrics,
            self._batches,
            self._skipped,
            has_checkpoints=lambda: bool(self._checkpoints.steps),
        )
        self._feed = _feed(self._experiment, self._batches, self._step, training.steps)
        stack.enter_context(contextlib.closing(self._feed))

    def _announce(self, rollback: Rollback | None) -> None:
        """Says what is about to run, and what is strange about it."""
        step, metrics = self._step, self._metrics
        if rollback:
            metrics.event(step, "rolled back", **rollback.as_event(self._skipped))
            metrics.print(
                f"rolled back from step {rollback.step:,} to step {step:,}: {rollback.reason}"
            )
            return
        metrics.print(_describe(self._experiment, self._program, self._batches, step))
        size = self._batches.plan.batches_per_epoch
        for warning in outlook.warnings(self._config, self._program.schedule, size, step):
            metrics.print(warning)
        if (missing := self._host.metrics_lines - metrics.lines) > 0:
            metrics.print(
                f"warning: {self._experiment.workdir}/{FILE} lacks {missing} of the "
                f"{self._host.metrics_lines} lines that it had at step {step:,}, as if it "
                "had been deleted or cut: the run goes on without them"
            )

    def _has_nothing_left(self) -> bool:
        """Whether the run was done before this process came."""
        limit = 60.0 * self._config.training.minutes
        is_over = 0.0 < limit < self._clock.before
        return self._step >= self._config.training.steps or self._stops_early() or is_over

    # A step ---------------------------------------------------------------------------------------

    def _take_step(self, batch: Batch, waited: float) -> None:
        shape = self._batches.shape(self._step)
        if shape not in self._compiled:
            self._metrics.compiling(self._step + 1, _shapes_text([shape]))
        self._state, values = self._program.step(self._state, batch)
        self._step += 1
        self._metrics.train(
            self._step,
            values.measured(),
            tokens=self._batches.target_tokens(self._step - 1),
            batch=self._batches.batch_digest(self._step - 1),
            waited=waited,
        )
        self._monitor.step(self._step, values.trouble, values.consecutive_bad)
        if not self._compiled:  # the first loss is said at once
            self._metrics.flush()
            for line in served:
                self._metrics.print(line)
        self._compiled.add(shape)
        run_directory.require_held(self._experiment.workdir)
        for callback in self._callbacks:
            callback.on_step(self._step, values)

    def _is_out_of_time(self) -> bool:
        training = self._config.training
        if self._step % training.log_every or not self._clock.is_over(training):
            return False
        self._metrics.event(self._step, "out of time", minutes=training.minutes)
        return True

    # Evaluation -----------------------------------------------------------------------------------

    def _evaluation_is_due(self) -> bool:
        if self._evaluator is None:
            return False
        return self._ended or self._step % self._config.training.eval_every == 0

    def _evaluate(self) -> float:
        """Evaluates on the development set; returns what early stopping looks at.

        Raises:
            Interrupted: a signal came meanwhile.
        """
        assert self._evaluator is not None
        self._settle()
        with self._stop.interrupting():
            values, samples = self._evaluator(self._state.ema or self._state.params)
        self._metrics.evaluation(self._step, values, samples)
        for callback in self._callbacks:
            callback.on_evaluation(self._step, values)
        config = self._config.early_stopping
        score, lower = values[config.metric], config.lower_is_better
        self._early_stopping = self._early_stopping.after(score, self._step, lower_is_better=lower)
        if self._stops_early():
            best = self._early_stopping.best_step
            self._metrics.event(self._step, "early stop", best_step=best)
        return score

    def _stops_early(self) -> bool:
        return self._early_stopping.exhausted(self._config.early_stopping.patience)

    # Checkpoints ----------------------------------------------------------------------------------

    def _checkpoint_is_due(self, score: float | None) -> bool:
        config = self._config.checkpoints
        is_best = score is not None and self._early_stopping.best_step == self._step
        is_regular = self._step % config.every == 0
        return self._ended or is_regular or bool(is_best and config.keep_best)

    def _save(self, score: float | None, *, evaluated: bool = True) -> None:
        self._settle()
        self._checkpoints.save(self._state, self._meta(score, evaluated), score)
        for callback in self._callbacks:
            callback.on_checkpoint(self._step)

    def _meta(self, score: float | None, evaluated: bool = True) -> dict[str, Any]:
        """The host's part of a checkpoint."""
        host = HostState(
            self._early_stopping,
            self._skipped,
            evaluated,
            self._clock.seconds,
            self._metrics.lines,
        )
        return {**host.as_meta(self._step), "stopped": not self._checkpoint_is_due(score)}

    def _settle(self) -> None:
        """Acts on every step up to here, and writes its numbers down, before anything is kept."""
        self._monitor.settle()
        self._metrics.flush()

    def _leave(self) -> Exit:
        self._checkpoints.wait()
        self._metrics.print(f"stopped at step {self._step:,}, all saved: the same command goes on")
        self._end(done=False)
        return Exit.PREEMPTED

    def _end(self, *, done: bool) -> None:
        for callback in self._callbacks:
            callback.on_end(self._step, done=done)


def _name(given: Callable[..., Any] | None) -> str:
    """What a run notes of a loss or an optimizer, so that it goes on with no other one."""
    if given is None:
        return "as configured"
    return getattr(given, "__qualname__", type(given).__qualname__)


def _feed(
    experiment: Experiment, batches: Batches, start: int, stop: int
) -> Generator[tuple[Batch, float]]:
    """Yields batches on the devices from step `start`, and how many seconds each was waited for."""
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


def _describe(experiment: Experiment, program: TrainProgram, batches: Batches, step: int) -> str:
    """Describes what is about to run, in three lines."""
    config = experiment.config
    mesh = " x ".join(f"{name} {size}" for name, size in experiment.layout.mesh.shape.items())
    total = sum(leaf.size for leaf in jax.tree.leaves(program.factory.abstract.params))
    where = f"on {jax.device_count()} {jax.devices()[0].device_kind} ({mesh})"
    return (
        f"run {config.run_name} in {experiment.workdir}\n"
        f"{config.model.family}, {total:,} parameters, {where}\n"
        f"{batches.plan.batches_per_epoch:,} batches an epoch, rows x source + target: "
        + _shapes_text(batches.plan.shapes)
        + (f"\ngoing on from step {step:,}" if step else "")
    )


def _shapes_text(shapes: Sequence[Shape]) -> str:
    """Rows, and positions of source and target, of each."""
    return ", ".join(f"{rows}x{source}+{target}" for rows, source, target in shapes)
