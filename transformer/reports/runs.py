"""One training of a report, and what is read off it: written down once, never done twice."""

import dataclasses
import gc
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from transformer import evaluation, files
from transformer.checkpoints import load_params
from transformer.config import Config
from transformer.errors import UserError
from transformer.evaluation import Evaluation
from transformer.experiment import Experiment
from transformer.files import AnyPath
from transformer.runtime import Exit
from transformer.training import metrics, train

More = Callable[[Experiment, Any, Evaluation], dict[str, Any]]  # experiment, parameters, scores


@dataclass(frozen=True)
class Run:
    """An experiment under its budget, with one seed, in a run directory of its own."""

    task: str  # which of a report's groups it belongs to
    name: str
    seed: int
    config: Config
    folder: AnyPath  # the report's

    @property
    def experiment(self) -> Experiment:
        return Experiment(dataclasses.replace(self.config, seed=self.seed), self.workdir)

    @property
    def workdir(self) -> AnyPath:
        # In a bucket a folder by itself, as any run's: it has an owner of its own.
        name = self.folder / "runs" / self.task / self.name / f"seed-{self.seed}"
        return files.any_path(str(name))

    @property
    def path(self) -> AnyPath:
        """The file of what has been read off the run."""
        return self.folder / "results" / f"{self.task}.{self.name}.{self.seed}.json"

    def result(self) -> dict[str, Any] | None:
        """What has been read off it; None where it has not been trained to its end.

        Raises:
            UserError: the file does not hold what was written.
        """
        if not self.path.exists():
            return None
        try:
            content = files.read_json(self.path)
            if content.get("config") != self.config.digest():
                return None
            if content.pop("checksum", None) != _checksum(content):
                raise files.Damaged("its checksum is another")
        except files.Damaged as error:
            raise UserError(
                f"{self.path} is damaged ({error}): delete it, and it is read off its run again"
            ) from None
        return content

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes down what has been read off it."""
        content = {"config": self.config.digest(), **result}
        files.write_json(self.path, {**content, "checksum": _checksum(content)})


def carry_out(run: Run, split: str, more: More | None = None) -> Exit:
    """Trains a run, or goes on with it, evaluates it and writes the result.

    Args:
        run: which.
        split: dev or test.
        more: what else there is to say of it.

    Returns:
        Exit.PREEMPTED where a signal stopped the training; all of it is saved.
    """
    code = train(run.experiment)
    if code == Exit.DONE:
        run.write_result(_read_off(run.workdir, split, more))
    jax.clear_caches()  # a run's programs are nobody else's: they stay on disk
    gc.collect()
    return code


def bleu_signatures(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """How BLEU was computed, of all rows alike or of each: `signature` (its rows); ...

    Args:
        results: of each row, those of its runs.
    """
    rows: dict[str, dict[str, None]] = {}
    for name, of_experiment in results.items():
        for one in of_experiment:
            rows.setdefault(one["bleu_signature"], {})[name] = None
    if len(rows) == 1:
        return f"`{next(iter(rows))}`"
    return "; ".join(f"`{signature}` ({', '.join(names)})" for signature, names in rows.items())


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(files.as_json(content).encode())


def _read_off(workdir: AnyPath, split: str, more: More | None) -> dict[str, Any]:
    experiment = Experiment.open(workdir)
    params, which = load_params(experiment)
    scores = evaluation.evaluate(experiment, params, split)
    lines = metrics.read(workdir)
    if not lines:
        raise UserError(
            f"{workdir}/{metrics.FILE} is missing, which tells how long the run took: bring it "
            f"back, or delete {workdir} to train it again"
        )
    steps = lines[-1]["step"]
    evaluations = [line for line in lines if line["kind"] == "eval"]
    curve = [(line["step"], line["nll"]) for line in evaluations if line.get("nll") is not None]
    return {
        "parameters_of": which,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_params)),
        "steps": steps,
        "seconds": lines[-1]["clock"]["seconds"],
        "target_tokens": sum(map(experiment.train_batches.target_tokens, range(steps))),
        "curve": curve,  # of the development set: step, negative log-likelihood
        **scores.as_dict(),
        **(more(experiment, params, scores) if more else {}),
    }
