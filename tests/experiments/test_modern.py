"""The choices of today: each row takes back what it says, and base is the paper's."""

import json

import pytest

from experiments import base, modern
from transformer.__main__ import main
from transformer.config import Config, from_dict
from transformer.run_directory import differences


def config(variant: str) -> Config:
    return from_dict(modern.get_config(variant).to_dict())


def test_each_row_takes_back_one_choice() -> None:
    whole, paper = config("").as_dict(), from_dict(base.get_config().to_dict()).as_dict()
    changed = set(differences(whole, paper))
    assert modern.get_config("base") == base.get_config()
    for choice in modern.CHOICES:
        row = config(f"without_{choice}").as_dict()
        sections = tuple(f"{key}." for key in modern.CHOICES[choice])
        back = {key for key in changed if f"{key}.".startswith(sections)}
        assert back and set(differences(row, whole)) == back
        assert set(differences(row, paper)) == changed - back


def test_a_scale_keeps_what_a_row_takes_back() -> None:
    for scale in ("casa_roja", "multi30k"):
        rows = {name: config(f"{name},{scale}") for name in modern.ROWS}
        assert len({row.digest() for row in rows.values()}) == len(rows)
        assert all(row.data == rows["modern"].data for row in rows.values())
        rates = {name for name, row in rows.items() if row.optimizer.schedule == "rsqrt"}
        assert rates == {"without_rate", "base"}


def test_parameters_of_all_rows(capsys: pytest.CaptureFixture) -> None:
    """A gated network of two thirds has as many as base's; a table that no paper has is shown."""
    table = f"--config={modern.__file__}:all"
    with pytest.raises(SystemExit):
        main(["params", table, "--json"])
    rows = {row["row"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(modern.ROWS)
    assert rows["modern"]["published"] is None
    assert rows["modern"]["layers"] / rows["without_swiglu"]["layers"] == pytest.approx(1, abs=5e-3)
    with pytest.raises(SystemExit):
        main(["params", table])
    assert "without_rms_norm " in capsys.readouterr().out
