"""A comparison from top to bottom: speed first, then every training, then the report."""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from transformer import files, machine
from transformer.config import ComparisonConfig, Config
from transformer.errors import UserError
from transformer.files import AnyPath
from transformer.reports import folder
from transformer.reports.compare import budgets, speed
from transformer.reports.compare.measured import measured
from transformer.reports.compare.report import write_report
from transformer.reports.runs import Run
from transformer.runtime import Exit

log = logging.getLogger(__name__)

FILE = "comparison.json"
MAY_CHANGE = ("seeds", "sentences", "length_bins")  # between starts: nothing measured depends on it


def compare(config: ComparisonConfig, workdir: AnyPath) -> Exit:
    """Carries a comparison out, or goes on with it, and writes its report.

    Returns:
        Exit.DONE, or Exit.PREEMPTED when a signal stopped it and all is saved.

    Raises:
        UserError: the directory holds something else, or an experiment cannot be trained.
    """
    if config.budget == "minutes" and jax.device_count() > 1:
        raise UserError(
            f"budget is 'minutes' but there are {jax.device_count()} devices: speed is measured on "
            "one, so show one (JAX_NUM_CPU_DEVICES=1, CUDA_VISIBLE_DEVICES=0), or take another"
        )
    with folder.acquire(workdir, FILE, config.as_dict(), MAY_CHANGE):
        # Widths that the budget changes, before speed is measured; updates, after it.
        groups = {"translation": config.translation}
        groups |= {f"recall.{task}": group for task, group in config.recall.items()}
        if config.budget == "parameters":
            groups = {
                task: budgets.with_equal_parameters(group, config.reference)
                for task, group in groups.items()
            }
        speeds = _speeds(config, groups["translation"], workdir)
        groups = {task: _matched(config, task, group, speeds) for task, group in groups.items()}
        runs = [
            Run(task, name, seed, experiment, workdir)
            for task, group in groups.items()
            for seed in config.seeds
            for name, experiment in group.items()
        ]
        code = folder.carry_out_all(runs, "test", partial(measured, config.reach))
        if code == Exit.DONE:
            for path in write_report(config, workdir, speeds, runs):
                print(path)
    return code


def _speeds(
    config: ComparisonConfig, group: Mapping[str, Config], workdir: AnyPath
) -> dict[int, dict[str, dict[str, Any]]]:
    """Measures the speed of each length and experiment, where it has not been measured."""
    speeds: dict[int, dict[str, dict[str, Any]]] = {}
    slow: set[str] = set()
    for length in config.speed.lengths:
        path = workdir / "results" / f"speed.{length}.json"
        if not path.exists():
            log.info("measuring speed at %d tokens a sentence", length)
            rows = speed.measure(group, length, config.speed, slow)
            files.write_json(path, {"machine": machine.describe(), "rows": rows})
        try:
            speeds[length] = files.read_json(path)["rows"]
        except (files.Damaged, KeyError) as error:
            raise UserError(
                f"{path} is damaged ({error}): delete it, and it is measured again"
            ) from None
        for name, row in speeds[length].items():
            if (row["train_seconds"] or 0.0) > config.speed.longest:
                slow.add(name)
    return speeds


def _matched(
    config: ComparisonConfig,
    task: str,
    group: Mapping[str, Config],
    speeds: Mapping[int, Mapping[str, Mapping[str, Any]]],
) -> dict[str, Config]:
    """Updates under the budget; of recall, whose sentences are long and short, as many for all."""
    budget = config.budget if task == "translation" else "tokens"
    trained = [n for n, rows in speeds.items() if all(r["train_tokens"] for r in rows.values())]
    if budget == "minutes" and not trained:
        raise UserError(
            "budget is 'minutes' but no length was measured for all: raise speed.longest, or take "
            "another budget"
        )
    nearest = min(trained or speeds, key=lambda length: abs(length - config.sentence_length))
    return budgets.with_equal_updates(
        group,
        config.reference,
        budget,
        length=config.sentence_length,
        minutes=config.minutes,
        speeds={name: row["train_tokens"] for name, row in speeds[nearest].items()},
    )
