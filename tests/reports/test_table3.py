"""Table 3 again: pooled intervals, Holm's correction, and the command in a real process."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats

from experiments import table3 as experiment
from tests.support.processes import ROOT, error_line, run, start, stop_once
from transformer.__main__ import main
from transformer.config import from_dict
from transformer.config.experiment_files import load_rows
from transformer.errors import UserError
from transformer.reports import runs as carried
from transformer.reports.runs import Run, bleu_signatures
from transformer.reports.statistics import Pooled, holm
from transformer.reports.table3.report import Measure, write_report

TABLE = f"--config={ROOT}/experiments/table3.py:all"


def test_a_pooled_difference_is_that_of_the_analysis_of_variance() -> None:
    """Of two groups alone it is Student's t test with equal variances."""
    one, other = [1.0, 1.4, 0.9], [2.0, 2.5, 1.7]
    pooled = Pooled.of([one, other])
    test = stats.ttest_ind(one, other, equal_var=True)
    interval = test.confidence_interval(0.95)
    found = pooled.difference(one, other)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert pooled.p_value(one, other) == pytest.approx(test.pvalue)
    assert pooled.freedom == 4
    wider = Pooled.of([one, other, [0.0, 9.0]])
    assert wider.freedom == 5 and wider.difference(one, other).sign == 0
    mean = pooled.mean(one)
    assert mean.high - mean.low < found.high - found.low


def test_holm_is_stepwise() -> None:
    # Holm 1979: 4, 3, 2, 1 times the sorted values, never below the one before, at most 1.
    assert holm({"a": 0.02, "b": 0.01, "c": 0.9, "d": 0.03}) == pytest.approx(
        {"a": 0.06, "b": 0.04, "c": 0.9, "d": 0.06}
    )
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_bold_is_what_stands_the_correction() -> None:
    values = {
        "base": [4.00, 4.02],
        "far": [5.00, 5.01],
        "near": [4.01, 4.00],
        **{f"row{number}": [4.0, 4.0] for number in range(5)},
    }
    measure = Measure.of(values)
    assert measure.difference("far", 2).startswith("**+1.00 [")
    assert measure.difference("near", 2).startswith("-0.00 [")
    assert measure.difference("base", 2) == ""
    assert measure.shift("far") == pytest.approx(0.995)


def result(run: Run, nll: float, bleu: float) -> dict[str, Any]:
    return {
        "config": run.config.digest(),
        "nll": nll,
        "bleu": bleu,
        "bleu_signature": "nrefs:1",
        "seconds": 60.0,
        "steps": 100,
        "target_tokens": 1_000_000,
        "parameters": 1_234_567,
        "curve": [[25, 6.0], [75, 5.0], [100, 4.5]],
    }


def carried_out(entropies: dict[str, tuple[float, ...]], workdir: Path) -> list[Run]:
    """Runs with results, one a value; nothing is trained."""
    config, runs = from_dict(experiment.get_config("base,smoke").to_dict()), []
    for name, values in entropies.items():
        for seed, value in enumerate(values):
            runs.append(Run("table3", name, seed, config, workdir))
            runs[-1].path.parent.mkdir(exist_ok=True)
            runs[-1].write_result(result(runs[-1], value, 10.0 + seed))
    return runs


def test_the_report_says_how_far_and_what_differs(tmp_path: Path) -> None:
    entropies = {"base": (4.0, 4.01), "A1": (4.5, 4.51), "B1": (4.0, 4.02), "E": (3.5, 3.51)}
    runs = carried_out(entropies, tmp_path)
    published = {name: experiment.ROWS[name].published for name in entropies}
    markdown, page, content = write_report(published, runs, tmp_path)
    text = markdown.read_text()
    assert "1,000,000 target tokens are 4.0e-04 of the paper's" in text
    assert "went from 5.000 to 4.500 nats" in text
    assert "Of 3 rows, 2 differ from base in cross-entropy by more than chance: A1 **+0.5" in text
    assert "Of the 2 rows that differ by more than chance, 1 do so in the paper's" in text
    assert "against it" not in text  # E's perplexity is base's in the paper
    line = next(line for line in text.splitlines() if line.startswith("| A1"))
    assert "**+0.500 [" in line and "+0.073" in line and "5.29" in line and "24.9" in line
    assert "**" not in next(line for line in text.splitlines() if line.startswith("| B1"))
    assert "<b>+0.500" in page.read_text()
    assert set(json.loads(content.read_text())["rows"]) == set(entropies)


def test_a_table_that_no_paper_has(tmp_path: Path) -> None:
    """Its first row is what all others are compared with, whatever its name."""
    runs = carried_out({"modern": (4.0, 4.01), "without_norm": (4.5, 4.51)}, tmp_path)
    markdown, _, content = write_report(dict.fromkeys(("modern", "without_norm")), runs, tmp_path)
    text = markdown.read_text()
    assert "# Beside modern, row by row" in text and "paper" not in text
    line = next(line for line in text.splitlines() if line.startswith("| without_norm"))
    assert "**+0.500 [" in line
    assert json.loads(content.read_text())["rows"]["modern"]["published"] is None


def cells(markdown: str, name: str) -> list[tuple[str, str]]:
    """Of a row, each column's header and what stands below it."""
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    row = next(line for line in table if line.startswith(f"| {name} |"))
    split = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (table[0], row))
    return list(zip(*split, strict=True))


def test_a_row_of_ones_own_beside_the_papers(tmp_path: Path) -> None:
    """It has nothing of the paper's; and one of another vocabulary does not compare."""
    entropies = {"base": (4.0, 4.01), "mine": (4.5, 4.51), "big": (9.0, 9.01), "A1": (4.0, 4.02)}
    runs = carried_out(entropies, tmp_path)
    published = {name: experiment.ROWS[name].published for name in ("base", "big", "A1")}
    papers = {name: published.get(name) for name in entropies}
    text = write_report(papers, runs, tmp_path)[0].read_text()
    papers_cells = [cell for header, cell in cells(text, "mine") if "paper's" in header]
    assert papers_cells == [""] * 5 and dict(cells(text, "A1"))["BLEU, paper's"] == "24.9"
    assert "Of 3 rows, 2 differ from base in cross-entropy by more than chance: mine" in text
    of_big = [run for run in runs if run.name == "big"]
    larger = from_dict(experiment.get_config("big,smoke").to_dict())
    other = dataclasses.replace(larger.data.tokenizer, vocab_size=600)
    larger = dataclasses.replace(larger, data=dataclasses.replace(larger.data, tokenizer=other))
    larger = from_dict(larger.as_dict())
    runs = [dataclasses.replace(r, config=larger) if r in of_big else r for r in runs]
    for each, value in zip((r for r in runs if r.name == "big"), entropies["big"], strict=True):
        each.write_result(result(each, value, 10.0))
    text = write_report(papers, runs, tmp_path)[0].read_text()
    assert "big: another vocabulary than base's" in text
    assert "Of 2 rows, 1 differ from base in cross-entropy by more than chance: mine" in text
    assert next(cell for header, cell in cells(text, "big") if header == "less base") == ""
    assert "Of the 0 rows" in text
    first = {"mine": None, "base": published["base"]}
    text = write_report(first, runs[2:4] + runs[:2], tmp_path)[0].read_text()
    assert "# Beside mine, row by row" in text and "paper" not in text


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    (one, *_) = carried_out({"base": (4.0, 4.1)}, tmp_path)
    assert one.result()
    good = one.path.read_text(encoding="utf-8")
    changed = json.loads(good) | {"curve": 3}
    for bad in ('{"config": ', json.dumps(changed), good.replace("4.0", '"x"', 1)):
        one.path.write_text(bad, encoding="utf-8")
        with pytest.raises(UserError, match=r"results/table3.base.0.json is damaged .*: delete it"):
            one.result()


def test_each_signature_of_bleu_is_named(tmp_path: Path) -> None:
    same = {"base": [{"bleu_signature": "tok:13a"}] * 2, "A1": [{"bleu_signature": "tok:13a"}]}
    assert bleu_signatures(same) == "`tok:13a`"
    differ = {**same, "zh": [{"bleu_signature": "tok:zh"}]}
    assert bleu_signatures(differ) == "`tok:13a` (base, A1); `tok:zh` (zh)"


def test_a_run_without_its_metrics_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = SimpleNamespace(as_dict=dict)
    for module, name, value in (
        (carried.Experiment, "open", lambda workdir: SimpleNamespace(workdir=workdir)),
        (carried, "load_params", lambda experiment: ({}, "last")),
        (carried.evaluation, "evaluate", lambda *_: evaluation),
    ):
        monkeypatch.setattr(module, name, value)
    with pytest.raises(UserError, match=r"metrics.jsonl is missing"):
        carried._read_off(tmp_path, "dev", None)


def test_elsewhere_a_table_is_the_same(tmp_path: Path) -> None:
    """On other devices, with another cache, what is done is not done again."""
    (one, *_) = carried_out({"base": (4.0, 4.1)}, tmp_path)

    def changed(section: str, **keys: Any) -> Run:
        own = dataclasses.replace(getattr(one.config, section), **keys)
        return dataclasses.replace(one, config=dataclasses.replace(one.config, **{section: own}))

    assert changed("mesh", fsdp=2).result() and changed("data", cache_dir="/elsewhere").result()
    assert changed("training", steps=99).result() is None
    assert changed("data", max_length=8).result() is None


ROWS_OF = """
from experiments import base
from transformer.config.experiment_files import Row

ROWS = {rows}


def get_config(variant=""):
    changes = {{name: getattr(row, "change", None) for name, row in dict(ROWS).items()}}
    return base.with_variants(base.get_config(), variant, changes)
"""


@pytest.mark.parametrize(
    ("rows", "scale", "message"),
    [
        ('{"a": {}, "b": {"model.norm": "pre"}}', "", r"ROWS\['a'\] is a dict; it must be a .*Row"),
        ('[("a", Row(None, {}))]', "", r"ROWS is a list; it must be a dict"),
        (
            '{"a": Row(None, {}), "b": Row(None, {"model.kv_heads": 3})}',
            "",
            r":b: model.kv_heads is",
        ),
        (
            '{"a": Row(None, {}), "b": Row(None, {"model.heads": "x"})}',
            "",
            r":b: line 10: heads is 'x'; it",
        ),
        ('{"a": Row(None, {}), "b": Row(None, {"model.heads": 4})}', "smoke,b", r"b is a row of"),
    ],
)
def test_rows_that_are_none_are_refused(
    rows: str, scale: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "table.py"
    file.write_text(ROWS_OF.format(rows=rows))
    with pytest.raises(UserError, match=message) as caught:
        load_rows(str(file), (), scale)
    assert "\n" not in str(caught.value)


def test_what_is_no_table_is_refused(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    for config in ("casa_roja.py:all", "table3.py:A1"):
        with pytest.raises(SystemExit) as caught:
            main(["table3", f"--config={ROOT}/experiments/{config}", f"--workdir={tmp_path}/t"])
        assert caught.value.code == 1
        error_line(capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main(["table3", TABLE, "--scale=smoke", "--seeds=1", f"--workdir={tmp_path}/t"])
    assert "two seeds at least" in error_line(capsys.readouterr().err)
    assert not (tmp_path / "t").exists()


THREE_ROWS = """
from experiments import table3

ROWS = {name: table3.ROWS[name] for name in ("base", "A1", "E")}
get_config = table3.get_config
"""


@pytest.mark.long
def test_the_table_is_stopped_and_gone_on_with(tmp_path: Path) -> None:
    """Four steps of three rows: that the command runs, not what it finds."""
    table, workdir = tmp_path / "table.py", tmp_path / "table3"
    table.write_text(THREE_ROWS)
    keys = ("steps=4", "eval_every=2", "log_every=1")
    command = (
        *("table3", f"--config={table}:all", "--scale=smoke", f"--workdir={workdir}"),
        *(f"--config.training.{key}" for key in keys),
    )
    process = start(*command, cache=tmp_path)
    first = workdir / "results" / "table3.A1.0.json"
    errors = stop_once(process, first)
    assert process.returncode == 42, errors
    before = first.stat().st_mtime_ns
    elsewhere = "--config.data.prefetch=3"  # with which the rows are the same
    code, output, errors = run(*command, elsewhere, cache=tmp_path, timeout=600)
    assert code == 0, errors
    assert first.stat().st_mtime_ns == before
    assert "[6/6] table3: E, seed 1, about 0:" in errors
    text = (workdir / "report.md").read_text()
    assert all(f"\n| {name} | " in text for name in ("base", "A1", "E"))
    base = workdir / "runs" / "table3" / "base" / "seed-0" / "metrics.jsonl"
    lines = [json.loads(line) for line in base.read_text().splitlines()]
    trained_on = sum(line["tokens"] for line in lines if line["kind"] == "train")
    assert f" updates, {trained_on:,} target tokens." in text
    assert output.split() == [str(workdir / f"report.{end}") for end in ("md", "html", "json")]
