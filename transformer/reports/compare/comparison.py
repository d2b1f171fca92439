"""A comparison from top to bottom: speed first, then every training, then the report."""

import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from transformer import files, runtime
from transformer.config import ComparisonConfig, Config
from transformer.reports import folder
from transformer.reports.compare import budgets, speed
from transformer.reports.compare.measured import measured
from transformer.reports.compare.report import write_report
from transformer.reports.runs import Run
from transformer.runtime import Exit

log = logging.getLogger(__name__)

FILE = "comparison.json"
MAY_CHANGE = ("seeds", "sentences", "length_bins")  # between starts: nothing measured depends on it


def compare(config: ComparisonConfig, workdir: Path) -> Exit:
    """Carries a comparison out, or goes on with it, and writes its report.

    Returns:
        Exit.DONE, or Exit.PREEMPTED when a signal stopped it and all is saved.

    Raises:
        UserError: the directory holds something else, or an experiment cannot be trained.
    """
    with folder.claim(workdir, FILE, config.as_dict(), MAY_CHANGE):
        speeds = _speeds(config, workdir)
        runs = [
            Run(task, name, seed, experiment, workdir)
            for task, group in _groups(config, speeds)
            for seed in config.seeds
            for name, experiment in group.items()
        ]
        code = folder.carry_out_all(runs, "test", partial(measured, config.reach))
        if code == Exit.DONE:
            for path in write_report(config, workdir, speeds, runs):
                print(path)
    return code


def _speeds(config: ComparisonConfig, workdir: Path) -> dict[int, dict[str, dict[str, Any]]]:
    """Of each length and experiment, measured where it has not been."""
    found: dict[int, dict[str, dict[str, Any]]] = {}
    slow: set[str] = set()
    for length in config.speed.lengths:
        path = workdir / "results" / f"speed.{length}.json"
        if not path.exists():
            log.info("measuring speed at %d tokens a sentence", length)
            rows = speed.measure(config.translation, length, config.speed, slow)
            files.write_json(path, {"machine": runtime.describe(), "rows": rows})
        found[length] = json.loads(path.read_text(encoding="utf-8"))["rows"]
        for name, row in found[length].items():
            if (row["train_seconds"] or 0.0) > config.speed.longest:
                slow.add(name)
    return found


def _groups(
    config: ComparisonConfig, speeds: dict[int, dict[str, dict[str, Any]]]
) -> Iterator[tuple[str, dict[str, Config]]]:
    """The experiments of each task, under their budgets."""
    nearest = min(speeds, key=lambda length: abs(length - config.sentence_length))
    options = {
        "length": config.sentence_length,
        "minutes": config.minutes,
        "speeds": {name: row["train_tokens"] for name, row in speeds[nearest].items()},
    }
    yield (
        "translation",
        budgets.matched(config.translation, config.reference, config.budget, **options),
    )
    for task, group in config.recall.items():
        # Distances are long: what a sentence costs is another matter, so batches are equal here.
        yield f"recall.{task}", budgets.matched(group, config.reference, "tokens", **options)
