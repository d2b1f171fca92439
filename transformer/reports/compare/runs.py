"""One training of a comparison, and what is read off it: written down once, never done twice."""

import dataclasses
import gc
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from transformer import evaluation, files
from transformer.config import Config, ReachConfig
from transformer.experiment import Experiment
from transformer.models import parameters
from transformer.reports.compare.reach import reach, recall_sources
from transformer.runtime import Exit
from transformer.training import train, trained_parameters


@dataclass(frozen=True)
class Run:
    """An experiment under its budget, with one seed, in a run directory of its own."""

    task: str  # translation, or recall.TASK
    name: str
    seed: int
    config: Config
    folder: Path  # the comparison's

    @property
    def workdir(self) -> Path:
        return self.folder / "runs" / self.task / self.name / f"seed-{self.seed}"

    @property
    def path(self) -> Path:
        """Of what has been read off it."""
        return self.folder / "results" / f"{self.task}.{self.name}.{self.seed}.json"

    @property
    def is_recall(self) -> bool:
        return self.task.startswith("recall.")

    def result(self) -> dict[str, Any] | None:
        """What has been read off it; None where it has not been trained to its end."""
        if not self.path.exists():
            return None
        found = json.loads(self.path.read_text(encoding="utf-8"))
        return found if found["config"] == self.config.digest() else None


def carry_out(run: Run, reach_config: ReachConfig) -> Exit:
    """Trains a run, or goes on with it, evaluates it and writes the result.

    Returns:
        Exit.PREEMPTED where a signal stopped the training; all of it is saved.
    """
    experiment = Experiment(dataclasses.replace(run.config, seed=run.seed), run.workdir)
    code = train(experiment)
    if code == Exit.DONE:
        files.write_json(run.path, {"config": run.config.digest(), **_read_off(run, reach_config)})
    del experiment
    jax.clear_caches()  # a run's programs are nobody else's: they stay on disk
    gc.collect()
    return code


def _read_off(run: Run, reach_config: ReachConfig) -> dict[str, Any]:
    experiment = Experiment.open(run.workdir)
    params, which = trained_parameters(experiment)
    found = evaluation.evaluate(experiment, params, "test")
    pairs = zip(found.translations, found.references, strict=True)
    lines = [json.loads(line) for line in (run.workdir / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    result: dict[str, Any] = {
        "parameters_of": which,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_params)),
        "steps": trained[-1]["step"],
        "seconds": lines[-1]["clock"]["seconds"],
        "tokens": _tokens(experiment, trained[-1]["step"]),
        **found.as_dict(),
        # Of each test sentence: its words, and whether its translation is the reference.
        "lengths": [len(source.split()) for source in found.sources],
        "correct": "".join("01"[ours.strip() == theirs.strip()] for ours, theirs in pairs),
    }
    if run.is_recall:
        source = recall_sources(experiment, reach_config.sentences)
        untrained = parameters.create(experiment.model, experiment.layout, run.seed)
        result["reach"] = {
            name: reach(
                experiment, these, source, probes=reach_config.probes, seed=run.seed
            ).tolist()
            for name, these in (("trained", params), ("untrained", untrained))
        }
        result["distances"] = [source.split().count(".") for source in found.sources]
    return result


def _tokens(experiment: Experiment, steps: int) -> int:
    """Target tokens trained on, padding left out."""
    batches = experiment.train_batches
    return sum(batches.target_tokens(step) for step in range(steps))
