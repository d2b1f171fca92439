"""Callbacks: what a user's own code may do while a run trains."""

from collections.abc import Mapping

from transformer.training.step import StepMetrics


class Callback:
    """Called by the training loop, in every process; override what is needed.

    class Printer(Callback):
        def on_evaluation(self, step, values):
            print(step, values["loss"])

    transformer.train(config, "runs/mine", callbacks=[Printer()])
    """

    def on_start(self, step: int) -> None:
        """Training is about to go on from `step`, 0 for a new run; also after a rollback."""

    def on_step(self, step: int, metrics: StepMetrics) -> None:
        """`step` updates are done. To read `metrics` waits for the device: do it seldom."""

    def on_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """The development set was evaluated: loss, nll, perplexity, accuracy, and what else is."""

    def on_checkpoint(self, step: int) -> None:
        """A checkpoint of this step is being written."""

    def on_end(self, step: int, *, done: bool) -> None:
        """Training ends at `step`: at its end, or because a signal stopped it."""
