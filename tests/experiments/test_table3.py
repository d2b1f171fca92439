"""The paper's rows: every count of Table 3, and Table 2's training FLOPs beside the formula's."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments import base, table3, wmt14_en_de_base, wmt14_en_de_big, wmt14_en_fr_big
from transformer.__main__ import main
from transformer.config import Config, from_dict
from transformer.config.experiment_files import load_config
from transformer.errors import UserError
from transformer.reports import parameter_table

FILE = Path(table3.__file__)


def config(name: str) -> Config:
    return from_dict(table3.get_config(name).to_dict())


def layers(c: Config) -> int:
    """Of the paper's model: products without biases, a bias and a norm a sub-layer's width."""
    D, F, m = c.model.d_model, c.model.d_ff, c.model
    attention = 2 * D * m.heads * (m.d_k + m.d_v)
    feed_forward = 2 * D * F + F + D
    encoder, decoder = attention + feed_forward + 2 * 2 * D, 2 * attention + feed_forward + 6 * D
    return m.encoder_layers * encoder + m.decoder_layers * decoder


def test_the_counts_of_all_rows(capsys: pytest.CaptureFixture) -> None:
    """Layers exactly; totals to the digits that the paper prints."""
    with pytest.raises(SystemExit) as done:
        main(["params", f"--config={FILE}:all", "--json"])
    assert done.value.code == 0
    rows = {row["row"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(table3.ROWS) and len(rows) == 20
    assert rows["base"]["layers"] == 44_101_632
    assert rows["big"]["layers"] == 176_283_648
    printed = 0
    for name, row in rows.items():
        c, published = config(name), table3.ROWS[name].published
        learned = 2 * 306 * 512 if name == "E" else 0
        assert row["layers"] == layers(c)
        assert row["total"] == layers(c) + c.model.vocab_size * c.model.d_model + learned
        assert c.model.vocab_size == (36_000 if name == "big" else 41_100)
        assert published is not None and row["published"] == dataclasses.asdict(published)
        if published.millions:
            assert round(row["total"] / 1e6) == published.millions
            printed += 1
        else:  # the paper leaves blank what is as in base
            assert round(row["total"] / 1e6) == 65
    assert printed == 11
    assert len({row["total"] for row in rows.values()}) == 12


def test_the_table_is_readable_and_says_why_flops_differ(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["params", f"--config={FILE}:all"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["row", "layers", "total", "millions", "paper", "FLOPs", "paper"]
    first, last = (" ".join(lines[row].split()) for row in (0, 19))
    assert first == "base 44,101,632 65,144,832 65.1 65 9.8e+17 3.3e+18"
    assert last == "big 176,283,648 213,147,648 213.1 213 9.6e+18 2.3e+19"
    assert len(lines) == 21 and "what a GPU could sustain" in lines[20]


def test_training_flops_with_the_vocabulary_of_the_text() -> None:
    """6 · N · tokens is 9.5e17 and 9.6e18; Table 2's 3.3e18 and 2.3e19 are hours x 9.5e12 a GPU."""
    for module, expected in ((wmt14_en_de_base, "9.5e+17"), (wmt14_en_de_big, "9.6e+18")):
        row = parameter_table.Row.of("", from_dict(module.get_config().to_dict()), 32, None)
        assert f"{row.training_flops:.1e}" == expected
    for name, hours in (("base", 12), ("big", 3.5 * 24)):
        published = table3.ROWS[name].published
        assert published and f"{hours * 3600 * 8 * 9.5e12:.1e}" == f"{published.training_flops:.1e}"


def test_a_row_differs_from_base_in_what_the_paper_names() -> None:
    """And in the schedule's scale, which follows the width (Eq. 3)."""

    def flat(tree: dict, path: str = "") -> dict:
        pairs = ((f"{path}{k}", v) for k, v in tree.items())
        found = {}
        for k, v in pairs:
            found |= flat(v, f"{k}.") if isinstance(v, dict) else {k: v}
        return found

    def differ(name: str) -> dict:
        theirs, mine = flat(base.get_config().to_dict()), flat(table3.get_config(name).to_dict())
        changed = {k.removeprefix("model."): v for k, v in mine.items() if v != theirs[k]}
        assert changed.pop("checkpoints.average") == 1
        assert changed.pop("data.tokenizer.vocab_size") in (41_100, 36_000)
        return changed

    assert differ("base") == {}
    assert differ("A1") == {"heads": 1, "d_k": 512, "d_v": 512}
    assert differ("B1") == {"d_k": 16}
    scale = "optimizer.schedule_options.scale"
    assert differ("C4") == {"d_model": 256, "d_k": 32, "d_v": 32, scale: 256**-0.5}
    assert differ("D3") == {"training.label_smoothing": 0.0}
    assert differ("E") == {"positions.scheme": "learned"}
    big = differ("big")
    assert (big["dropout"], big["training.steps"], big["heads"]) == (0.3, 300_000, 16)
    assert wmt14_en_fr_big.get_config().model.dropout == 0.1


def test_all_rows_at_once_are_for_two_commands_alone() -> None:
    with pytest.raises(
        UserError, match="'all' is for `transformer params` and `transformer table3`: here take one"
    ):
        load_config(f"{FILE}:all", [])
    assert load_config(f"{FILE}:C4,smoke", []).data.source == "casa_roja"
