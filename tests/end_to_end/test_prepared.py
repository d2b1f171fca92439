"""Corpora prepared and shared, by real processes: text and tokens in a bucket, parts, a kill."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import object_stores
from tests.support.processes import TINY, error_line, metrics, run, start
from transformer import storage
from transformer.data.sources import CasaRoja
from transformer.storage.address import Address
from transformer.storage.stores import open_store

STEPS = ("--config.training.steps=20", "--config.training.eval_every=20")


@pytest.fixture(
    scope="module",
    params=[pytest.param("gs", marks=pytest.mark.slow), pytest.param("s3", marks=pytest.mark.long)],
)
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    server = object_stores.google() if request.param == "gs" else object_stores.amazon()
    with server:
        yield f"{request.param}://{object_stores.BUCKET}"


def text(folder: str) -> list[str]:
    """The options that name a corpus's files."""
    names = [f"{split}_{side}" for split in ("train", "dev") for side in ("source", "target")]
    named = [f"--config.data.text.{name}={folder}/{name}" for name in names]
    return ["--config.data.source=text", *named]


def write_corpus(folder: Path) -> None:
    corpus = CasaRoja(200, 11, 11)
    for split in ("train", "dev"):
        pairs = [*corpus.pairs(split)]
        for side in ("source", "target"):
            lines = "".join(f"{getattr(pair, side)}\n" for pair in pairs)
            (folder / f"{split}_{side}").write_text(lines, encoding="utf-8")


def digests(address: str) -> dict[str, str]:
    """SHA-256 of each file of a folder in a bucket, by name."""
    root = storage.bucket_path(address).root
    return {name: hashlib.sha256(root.read(name)).hexdigest() for name in root.names()}


def test_text_and_tokens_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    """Two machines prepare half each; a third trains as one does that has the text on its disk."""
    for name in ("text", "a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    write_corpus(tmp_path / "text")
    scheme = bucket.partition(":")[0]
    for path in (tmp_path / "text").iterdir():
        address = Address(scheme, object_stores.BUCKET, f"text/{path.name}")
        open_store(scheme).write(address, path.read_bytes())
    to = f"--to={bucket}/prepared"
    halves = [
        start(
            *("prepare", TINY, *text(f"{bucket}/text"), to, f"--part={number}/2"),
            cache=tmp_path / name,
        )
        for number, name in ((1, "a"), (2, "b"))
    ]
    results = [process.communicate(timeout=200) for process in halves]
    assert [process.returncode for process in halves] == [0, 0], results
    halves_are = digests(f"{bucket}/prepared")
    code, _, errors = run(
        *("prepare", TINY, *text(f"{bucket}/text"), f"--to={bucket}/whole"), cache=tmp_path / "a"
    )
    assert code == 0 and "--config.data.prepared=" in errors, errors
    assert digests(f"{bucket}/whole") == halves_are and "prepared.json" in halves_are

    runs = []
    for name, options in (
        ("c", ["--config.data.source=text", f"--config.data.prepared={bucket}/prepared"]),
        ("d", text(str(tmp_path / "text"))),
    ):
        workdir = tmp_path / name / "run"
        code, _, errors = run(
            "train", TINY, *options, *STEPS, f"--workdir={workdir}", cache=tmp_path / name
        )
        assert code == 0, errors
        runs.append(metrics(workdir))
    assert "copied 200 sentence pairs" not in errors
    assert runs[0] == runs[1] and len(runs[0]) > 2
    code, _, errors = run(*("prepare", TINY, *text(f"{bucket}/nothing"), to), cache=tmp_path / "a")
    assert code == 1 and f"{bucket}/nothing/train_source: No such object" in error_line(errors)


@pytest.mark.slow
def test_a_killed_prepare_goes_on(tmp_path: Path) -> None:
    """It keeps the shards that it had written, and ends with the same bytes."""
    size = "--config.data.casa_roja.train_size=300000"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ("prepare", TINY, size)
    process = start(*command, f"--to={killed}", cache=tmp_path)
    while not [*killed.glob("train-*/00001.npz")]:
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    assert not (killed / "prepared.json").exists()
    before = {path: path.stat().st_mtime_ns for path in killed.glob("train-*/*.npz")}
    for folder in (killed, whole):
        code, _, errors = run(*command, f"--to={folder}", cache=tmp_path)
        assert code == 0, errors
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    contents = [
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (killed, whole)
    ]
    assert contents[0] == contents[1] and len(before) >= 2
