"""A folder in a bucket: what several processes see of it. Each test once for each kind of store."""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import object_stores
from tests.support.memory_store import Memory
from transformer.errors import UserError
from transformer.storage import folder, store
from transformer.storage.address import Address
from transformer.storage.bucket_path import BucketPath
from transformer.storage.folder import Fenced, Folder
from transformer.storage.store import Changed, Store
from transformer.storage.stores import open_store

numbers = itertools.count()
Open = Callable[[], Folder]  # as another process opens the same folder


@pytest.fixture(
    scope="module",
    params=["memory", *(pytest.param(s, marks=pytest.mark.slow) for s in ("gs", "s3"))],
)
def stores(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store with a bucket."""
    if request.param == "memory":
        yield Store(Memory())
        return
    server = object_stores.google() if request.param == "gs" else object_stores.amazon()
    with server:
        yield open_store(request.param)


@pytest.fixture
def opened(stores: Store, request: pytest.FixtureRequest) -> Open:
    scheme = "s3" if "s3" in request.node.name else "gs"
    address = Address(scheme, object_stores.BUCKET, f"runs/{next(numbers)}")
    return lambda: Folder(address, stores)


@pytest.fixture
def short_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "TERM", 3.0)


def keys(one: Folder) -> set[str]:
    """Keys of all objects, below the folder."""
    found = one._store.list(one.address)
    return {address.key.removeprefix(f"{one.address.key}/") for address in found}


def test_a_file_is_there_whole_and_others_see_it(opened: Open) -> None:
    mine, theirs = opened(), opened()
    mine.take()
    mine.write("config.json", b"one")
    assert theirs.read("config.json") == b"one"
    mine.write("config.json", b"two")
    mine.write("empty", b"")
    assert theirs.read("config.json") == b"two"  # though it knew of the first content
    assert theirs.manifest(fresh=True).entries.keys() == {"config.json", "empty"}
    assert theirs.read("empty") == b""
    assert len(keys(mine)) == 2  # the manifest, and the one content
    with pytest.raises(FileNotFoundError):
        theirs.read("nothing")


def test_what_is_appended_is_read_as_one_file(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "PIECE", 64)
    mine, lines = opened(), [f"line {number}\n".encode() for number in range(40)]
    mine.take()
    for number, line in enumerate(lines):
        mine.append("metrics.jsonl", line)
        if number % 3 == 0:
            mine.renew()
    assert opened().read("metrics.jsonl") == b"".join(lines)  # up to 39, which a renewal showed
    pieces = opened().manifest().entries["metrics.jsonl"].pieces
    assert 3 < len(pieces) < 9 and all(piece.size >= 64 for piece in pieces[:-1])
    assert len(keys(mine)) == 1 + len(pieces)
    mine.append("metrics.jsonl", b"last\n")
    assert opened().read("metrics.jsonl") == b"".join(lines)
    mine.release()
    assert opened().read("metrics.jsonl") == b"".join(lines) + b"last\n"
    other = opened()
    other.take()
    other.append("metrics.jsonl", b"more\n")
    other.release()
    assert opened().read("metrics.jsonl").endswith(b"last\nmore\n")


def test_a_living_owner_is_named(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "TERM", 12.0)  # of which it is looked at every sixth
    mine, theirs = opened(), opened()
    mine.take()
    over = threading.Event()

    def live() -> None:
        while not over.wait(0.5):
            mine.renew()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(
            UserError, match=r"trained by another process, process \d+ on .*, since"
        ):
            theirs.take()
    finally:
        over.set()
        thread.join()
    mine.release()
    theirs.take()  # at once: nobody's


def test_a_killed_owner_is_waited_for_and_fenced(opened: Open, short_terms: None) -> None:
    """It comes to life again: nothing that it then writes is read, nor is the other's touched."""
    mine, theirs = opened(), opened()
    mine.take()
    mine.write("config.json", b"mine")
    mine.append("metrics.jsonl", b"seen\n")
    mine.renew()
    mine.append("metrics.jsonl", b"unseen\n")
    began = time.monotonic()
    theirs.take()
    assert 1.0 < time.monotonic() - began < 20.0
    theirs.append("metrics.jsonl", b"theirs\n")
    theirs.write("config.json", b"theirs")
    mine._store.write(mine.address / mine.new_key("late"), b"late")  # as a library may
    for change in (
        lambda: mine.write("config.json", b"mine again"),
        mine.renew,
        lambda: mine.remove("config.json"),
        lambda: mine.publish(folders={"checkpoints/1": "data/000001/checkpoints/1"}),
        mine.require_own,
    ):
        with pytest.raises(Fenced, match="taken over by process"):
            change()
    with contextlib.suppress(Fenced):
        mine.release()
    assert opened().read("config.json") == b"theirs"
    assert opened().read("metrics.jsonl") == b"seen\ntheirs\n"
    theirs.release()
    opened().take()  # which sweeps
    read = {piece.key for e in opened().manifest().entries.values() for piece in e.pieces}
    assert keys(opened()) == {"MANIFEST.json", *read}


def test_a_reader_adds_a_file_while_the_owner_writes(opened: Open) -> None:
    """Neither loses what the other wrote."""
    mine, reader = opened(), opened()
    mine.take()
    for number in range(4):
        mine.write(f"mine-{number}", b"mine")
        reader.write(f"read-{number}", b"read")
    seen = opened().manifest().entries
    assert len(seen) == 8 and mine.manifest(fresh=True).owner is not None
    mine.write("mine-0", b"still the owner")


def test_folders_of_libraries_are_named_renamed_and_removed(opened: Open) -> None:
    mine = opened()
    mine.take()
    for step in (10, 20):
        key = mine.key_of_save(f"checkpoints/{step}")
        mine._store.write(mine.address / f"{key}/params/array", b"numbers")
        mine._store.write(mine.address / f"{key}/meta/metadata", b"before")
        mine.publish(folders={f"checkpoints/{step}": key})
    path = BucketPath(opened()) / "checkpoints"
    assert [p.name for p in path.iterdir()] == ["10", "20"] and path.exists() and path.is_dir()
    meta = path / "10" / "meta" / "metadata"
    assert meta.read_bytes() == b"before" and (path / "10").address().startswith(str(mine.address))
    mine.write("checkpoints/10/meta/metadata", b"after")
    assert (BucketPath(opened()) / "checkpoints/10/meta/metadata").read_bytes() == b"after"
    mine.publish(renamed={"checkpoints/10": "damaged/10"}, without=["checkpoints/20"])
    assert [str(p).split("/")[-2:] for p in BucketPath(opened()).glob("*/*")] == [["damaged", "10"]]
    assert (BucketPath(opened()) / "damaged/10/meta/metadata").read_bytes() == b"after"
    assert not any("checkpoints/20" in key for key in keys(mine))
    mine.remove("damaged")
    assert keys(mine) == {"MANIFEST.json"}


def test_damage_is_said(opened: Open) -> None:
    mine = opened()
    mine.take()
    mine.write("config.json", b"content")
    (piece,) = mine.manifest().entries["config.json"].pieces
    mine._store.write(mine.address / piece.key, b"contend")
    with pytest.raises(OSError, match="it is not what was written"):
        opened().read("config.json")
    mine.release()
    for damaged in (b"", b"{}", b'{"format": 99}', b"\xff", b'{"format": 1, "entries": {"a": 1}}'):
        mine._store.write(mine.address / "MANIFEST.json", damaged or b" ")
        with pytest.raises(UserError, match=r"MANIFEST.json is damaged \("):
            opened().manifest()


def test_what_is_no_folder_of_ours_is_foreign(opened: Open) -> None:
    one = opened()
    assert not BucketPath(one).exists() and not one.is_foreign()
    one._store.write(one.address / "somebody.txt", b"theirs")
    assert not BucketPath(opened()).exists() and opened().is_foreign()


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    monkeypatch.setattr(store, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(store, "LONGEST_PAUSE", 0.002)
    return Memory()


ADDRESS = Address("gs", "bucket", "object")


def test_a_store_that_is_busy_is_asked_again(memory: Memory) -> None:
    memory.failures = ["busy"] * 5
    patient = Store(memory)
    patient.write(ADDRESS, b"x")
    memory.failures = ["busy", "busy"]
    assert patient.read(ADDRESS) == b"x" and patient.usage().requests == 9


def test_patience_has_an_end(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    memory.failures = ["busy"] * 999
    with pytest.raises(UserError, match=r"did not answer for .* \(busy\)"):
        Store(memory).read(ADDRESS)


def test_all_requests_have_one_patience(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that one request has waited for in vain is not waited for by the next."""
    slept: list[float] = []
    monkeypatch.setattr(store, "LONGEST_PAUSE", 16.0)
    monkeypatch.setattr(store.time, "sleep", slept.append)
    monkeypatch.setattr(store.time, "monotonic", lambda: sum(slept))
    patient = Store(memory)
    memory.failures = ["busy"] * 999
    for longest in (store.PATIENCE, 16.0):
        before = sum(slept)
        with pytest.raises(UserError, match="did not answer"):
            patient.read(ADDRESS)
        assert sum(slept) - before <= longest
    memory.failures = []
    patient.write(ADDRESS, b"x")
    before = sum(slept)
    memory.failures = ["busy"] * 20
    assert patient.read(ADDRESS) == b"x" and sum(slept) - before > 100.0


def test_a_write_whose_answer_was_lost_is_known_to_have_succeeded(memory: Memory) -> None:
    patient = Store(memory)
    first = patient.replace(ADDRESS, b"one", None)
    memory.failures = ["lost"]
    second = patient.replace(ADDRESS, b"two", first)
    assert memory.objects[ADDRESS].content == b"two" and memory.generation == 2
    patient.replace(ADDRESS, b"three", second)
    memory.failures = ["lost"]
    with pytest.raises(Changed):
        patient.replace(ADDRESS, b"four", second)


def test_what_was_appended_survives_a_store_that_was_away(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody hears of a sign of life that fails: the next change must have all of it."""
    one = Folder(ADDRESS, Store(memory))
    one.take()
    one.append("metrics", b"1\n")
    one.publish()
    one.append("metrics", b"2\n")
    with monkeypatch.context() as away:
        away.setattr(store, "PATIENCE", 0.0)
        memory.failures = ["busy"]
        with pytest.raises(UserError, match="did not answer"):
            one.renew()
    one.append("metrics", b"3\n")
    one.publish()
    assert Folder(ADDRESS, Store(memory)).read("metrics") == b"1\n2\n3\n"


def test_a_fenced_owner_finds_each_change_refused(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it appended is still unwritten, and the pieces before that are gone."""
    monkeypatch.setattr(folder, "TERM", 0.0)
    one, other = (Folder(ADDRESS, Store(memory)) for _ in range(2))
    one.take()
    one.append("metrics", b"1\n")
    one.publish()
    one.append("metrics", b"2\n")
    other.take()
    other.remove("metrics")
    one._tails.clear()
    for change in (one.renew, one.renew, lambda: one.write("a", b"x")):
        with pytest.raises(Fenced, match="was taken over by"):
            change()
    assert "metrics" not in other.manifest().entries


def test_a_reader_that_adds_a_file_hinders_no_owner_to_be(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, owner = (Folder(ADDRESS, Store(memory)) for _ in range(2))
    reader.write("first", b"x")
    replace = memory.replace

    def late(*arguments: Any) -> str:
        monkeypatch.setattr(memory, "replace", replace)
        reader.write("second", b"y")
        return replace(*arguments)

    monkeypatch.setattr(memory, "replace", late)
    owner.take()
    owner.write("third", b"z")
    assert {*owner.manifest().entries} == {"first", "second", "third"}


def test_all_processes_of_a_run_save_under_its_owners_token(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when another process has taken over meanwhile."""
    first, second, other = (Folder(ADDRESS, Store(memory)) for _ in range(3))
    first.take()
    second.join()
    monkeypatch.setattr(folder, "TERM", 0.0)
    other.take()
    assert first.key_of_save("1") == second.key_of_save("1") != other.key_of_save("1")


def test_a_folder_among_the_objects_of_another_is_refused(opened: Open) -> None:
    """Elsewhere below it is none of its affair: so the runs of a report lie."""
    one = opened()
    one.write("a", b"x")
    inside = Folder(one.address / "data/1/copy", one._store)
    with pytest.raises(UserError, match=r"lies among the objects of .*take another address"):
        inside.take()
    Folder(one.address / "runs/task", one._store).take()
    Folder(one.address / "other/data/task", one._store).take()


def test_a_sweep_deletes_nothing_of_others(opened: Open) -> None:
    one = opened()
    one.take()
    mine = one.address / "data/1/train.en.gz"
    one._store.write(mine, b"x")
    one.release()
    other = opened()
    other.take()
    assert other._store.read(mine) == b"x"


def test_a_folder_that_lacks_an_object_is_not_whole(opened: Open) -> None:
    one = opened()
    one.take()
    key = one.key_of_save("checkpoints/1.1")
    for name in "ab":
        one.write_object(f"{key}/{name}", b"x")
    one.publish(folders={"checkpoints/1": key})
    assert one.names() == ["checkpoints/1/a", "checkpoints/1/b"]
    one._store.delete([one.address / key / "a"])
    with pytest.raises(UserError, match="1 of 2 objects"):
        one.names()
