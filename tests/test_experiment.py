"""What an experiment's parts have in common with those of other runs of it."""

import json
from pathlib import Path

import jax
import pytest

from tests.support.tiny import get_config
from transformer.config import from_dict
from transformer.errors import UserError
from transformer.experiment import Experiment


def experiment(folder: Path, run: str, **tokenizer: object) -> Experiment:
    tree = get_config().to_dict()
    tree["data"] |= {"cache_dir": str(folder / "cache")}
    tree["data"]["tokenizer"] |= tokenizer
    (folder / run).mkdir()
    return Experiment(from_dict(tree), folder / run)


class Pieces:
    """A tokenizer of which nothing but the size is asked."""

    fingerprint, composes = "", True
    encode = decode = pieces = print

    def __init__(self, size: int):
        self.size = size


def rows_of(run: Experiment) -> set[int]:
    leaves = jax.tree.leaves(run.abstract_params)
    return {leaf.shape[0] for leaf in leaves if leaf.ndim == 2 and leaf.shape[0] > 64}


def test_a_new_model_is_as_large_as_its_tokenizer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fitted(pieces: int, asked: int, name: str = "") -> set[int]:
        caplog.clear()
        run = experiment(tmp_path, name or f"{pieces}-{asked}", vocab_size=asked)
        vars(run.data)["tokenizer"] = Pieces(pieces)
        assert rows_of(run) == {asked}
        changed = run.fit_vocabulary()
        assert changed == (rows_of(run) != {asked})
        again = Experiment(run.config, run.workdir)
        assert rows_of(again) == rows_of(run)
        return rows_of(run)

    assert fitted(969, 8_000) == {1_024}
    assert "has 969 pieces" in caplog.text and "1,024 rows for them, not 8,000" in caplog.text
    assert fitted(969, 1_024) == fitted(1_024, 1_024) == {1_024} and not caplog.text
    assert fitted(969, 969) == {969}


def test_a_run_with_checkpoints_keeps_its_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = experiment(tmp_path, "old", vocab_size=8_000)
    vars(run.data)["tokenizer"] = Pieces(969)
    (run.workdir / "checkpoints" / "3").mkdir(parents=True)
    assert not run.fit_vocabulary() and rows_of(run) == {8_000}
    assert "8,000 rows for them, as it had from the start" in caplog.text


@pytest.mark.parametrize("rows", ["x", 0, -3, 10**9, True, None, [3]])
def test_a_damaged_choice_of_rows_is_a_line(tmp_path: Path, rows: object) -> None:
    run = experiment(tmp_path, "run")
    (run.workdir / "choices.json").write_text(json.dumps({"vocab_size": rows}), encoding="utf-8")
    with pytest.raises(UserError, match=r"choices.json says that vocab_size is .*bring it back"):
        assert run.model


def test_a_run_opens_by_its_name_and_what_is_asked_of_it_is_not_its_files_fault(
    tmp_path: Path,
) -> None:
    made = experiment(tmp_path, "run")
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(made.config.as_dict()))
    for name in (str(path.parent), path.parent):
        opened = Experiment.open(name, decoding={"beam": 2})
        assert opened.workdir == path.parent and opened.config.decoding.beam == 2
    for changes, message in [
        ({"decoding": {"beam": 0}}, "decoding.beam is 0"),
        ({"decodign": {"beam": 2}}, "unknown key config.decodign: did you mean config.decoding"),
        ({"seed": {"a": 2}}, "config.seed is {'a': 2}"),
        ({"decoding": 3}, "config.decoding is 3; it must be a section"),
    ]:
        with pytest.raises(UserError) as caught:
            Experiment.open(path.parent, **changes)
        assert message in str(caught.value) and "config.json" not in str(caught.value)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"config\.json is damaged: it has no name"):
        Experiment.open(path.parent)
