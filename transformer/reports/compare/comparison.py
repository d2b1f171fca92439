"""A comparison from top to bottom: speed first, then every training, then the report."""

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer import files, run_directory, runtime
from transformer.config import ComparisonConfig, Config
from transformer.errors import UserError
from transformer.reports.compare import budgets, speed
from transformer.reports.compare.report import write_report
from transformer.reports.compare.runs import Run, carry_out
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
    _refuse_another(config, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    with run_directory.held(workdir):
        files.write_json(workdir / FILE, config.as_dict())
        for number in (signal.SIGINT, signal.SIGTERM):  # results are whole files or none
            signal.signal(number, lambda *_: os._exit(Exit.PREEMPTED))
        speeds = _speeds(config, workdir)
        groups = dict(_groups(config, speeds))
        runs = [
            Run(task, name, seed, experiment, workdir)
            for task, group in groups.items()
            for seed in config.seeds
            for name, experiment in group.items()
        ]
        for number, run in enumerate(runs, start=1):
            if run.result() is None:
                log.info(
                    "\n[%d/%d] %s: %s, seed %d", number, len(runs), run.task, run.name, run.seed
                )
                if (code := carry_out(run, config.reach)) != Exit.DONE:
                    return code
        for path in write_report(config, workdir, speeds, runs):
            print(path)
    return Exit.DONE


def _refuse_another(config: ComparisonConfig, workdir: Path) -> None:
    path = workdir / FILE
    if not path.exists():
        if workdir.exists() and any(
            entry.name != run_directory.LOCK for entry in workdir.iterdir()
        ):
            raise UserError(
                f"{workdir} exists and is no comparison (no {FILE}): take another --workdir"
            )
        return
    try:
        theirs = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): bring it back, or delete it") from None
    mine = config.as_dict()
    differ = [key for key in mine if key not in MAY_CHANGE and mine[key] != theirs.get(key)]
    if differ:
        raise UserError(
            f"{workdir} holds another comparison, whose {', '.join(differ)} differ: take another "
            "--workdir"
        )


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
