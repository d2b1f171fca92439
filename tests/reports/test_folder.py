"""An older report lacks keys that came later, and is gone on with."""

import json
from pathlib import Path

import pytest

from tests.support.tiny import get_config
from transformer.config import from_dict
from transformer.errors import UserError
from transformer.reports import folder

ROW = from_dict(get_config().to_dict()).as_dict()


def test_a_report_from_before_a_key_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").touch()
    old = {name: value for name, value in ROW.items() if name != "evaluation"}
    (tmp_path / "rows.json").write_text(json.dumps({"rows": {"a": old}}))
    other = {**ROW, "evaluation": {"bleu_tokenizer": "zh"}}
    with (
        pytest.raises(UserError, match=r"another report, whose rows.a.evaluation differ"),
        folder.acquire(tmp_path, "rows.json", {"rows": {"a": other}}, ()),
    ):
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder.signal, "signal", lambda *_: None)
        with folder.acquire(tmp_path, "rows.json", {"rows": {"a": ROW}}, ()):
            assert "evaluation" in (tmp_path / "rows.json").read_text()
