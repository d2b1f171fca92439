"""A report's folder, on a disk or in a bucket: an older one is gone on with, another's refused."""

import json
from pathlib import Path

import pytest

from tests.support.memory_store import Memory
from tests.support.tiny import get_config
from transformer.config import from_dict
from transformer.errors import UserError
from transformer.files import AnyPath
from transformer.reports import folder
from transformer.storage import BucketPath
from transformer.storage.address import Address
from transformer.storage.folder import Folder
from transformer.storage.store import Store

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


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_what_is_another_s_is_refused(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder.signal, "signal", lambda *_: None)
    store, address = Store(Memory()), Address("gs", "bucket", "report")

    def opened() -> AnyPath:
        return BucketPath(Folder(address, store)) if where == "bucket" else tmp_path

    if where == "bucket":
        store.write(address / "somebody.txt", b"theirs")
    else:
        (tmp_path / "somebody.txt").touch()
    with (
        pytest.raises(UserError, match=r"exists and holds no rows.json: it is no report's"),
        folder.acquire(opened(), "rows.json", {"rows": {"a": ROW}}, ()),
    ):
        pass
    if where == "bucket":
        store.delete([address / "somebody.txt"])
    else:
        (tmp_path / "somebody.txt").unlink()
    with folder.acquire(opened(), "rows.json", {"rows": {"a": ROW}}, ()):
        (opened() / "results" / "a.json").parent.mkdir(exist_ok=True)
        (opened() / "results" / "a.json").write_bytes(b"{}")
    with (
        pytest.raises(UserError, match=r"holds another report, whose rows.b differ"),
        folder.acquire(opened(), "rows.json", {"rows": {"b": ROW, "a": ROW}}, ()),
    ):
        pass
