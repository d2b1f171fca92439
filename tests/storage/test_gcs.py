"""Google's store through gcsfs, before the emulator: what is tried again, by whom, and counted."""

import random
import time
from collections.abc import Iterator

import pytest
import tensorstore
from etils import epath

from tests.support import object_stores
from transformer.errors import UserError
from transformer.storage import gcs_requests, store
from transformer.storage.address import Address
from transformer.storage.folder import Folder
from transformer.storage.store import Store
from transformer.storage.stores import open_store

pytestmark = pytest.mark.slow
NAME = f"gs://{object_stores.BUCKET}"


@pytest.fixture(scope="module")
def server() -> Iterator[object_stores.Proxy]:
    with object_stores.google() as proxy:
        yield proxy


@pytest.fixture
def google(server: object_stores.Proxy) -> Iterator[object_stores.Proxy]:
    """The store, as Orbax finds it too; without faults at first, and afterwards."""
    server.faults = object_stores.Faults()
    yield server
    server.faults = object_stores.Faults()


@pytest.fixture
def gcs(google: object_stores.Proxy) -> Store:
    return open_store("gs")


class Next(random.Random):
    """Draws these numbers, and then one that does no harm."""

    def __init__(self, *numbers: float):
        super().__init__()
        self.numbers = [*numbers]

    def random(self) -> float:
        return self.numbers.pop(0) if self.numbers else 1.0


def test_a_conditional_write_whose_answer_is_lost_is_known_to_have_succeeded(
    google: object_stores.Proxy, gcs: Store
) -> None:
    """Else a process would take itself for another one that owns the folder."""
    folder = Folder(Address("gs", object_stores.BUCKET, "lost"), gcs)
    google.faults.lost = 0.5
    google.faults.draw = Next(1.0, 0.0, 1.0)  # the look, and the write: lost when it is done
    folder.take()
    assert folder.manifest().token == 1 and google.faults.refused == 1
    folder.write("a", b"x")
    assert folder.read("a") == b"x"


def test_orbax_waits_as_long_as_we_do(
    google: object_stores.Proxy, gcs: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = epath.Path(f"{NAME}/busy/file")
    google.faults.busy_until = time.monotonic() + 2.0
    path.write_text("content")
    assert time.monotonic() > google.faults.busy_until and path.read_text() == "content"
    monkeypatch.setattr(store, "PATIENCE", 1.0)
    google.faults.busy_until = time.monotonic() + 3600.0
    with pytest.raises(UserError, match=r"gs://bucket/busy/other.* did not answer for .* \(busy"):
        path.parent.joinpath("other").exists()


def test_orbax_is_told_what_is_not_allowed(google: object_stores.Proxy, gcs: Store) -> None:
    google.faults.forbidden = ""
    with pytest.raises(UserError, match=r"no permission .* Storage Object User"):
        epath.Path(f"{NAME}/forbidden").exists()


def test_credentials_that_have_run_out_are_asked_for_again(
    google: object_stores.Proxy, gcs: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs_requests, "RENEWED", (0.0, 0.0))
    address = Address("gs", object_stores.BUCKET, "expired")
    google.faults.forbidden, google.faults.refusal = "", (401, "Invalid Credentials")
    with pytest.raises(UserError, match="takes no credentials of this machine"):
        gcs.write(address, b"x")
    assert google.faults.requests == 3
    google.faults.refusals = 2
    gcs.write(address, b"x")
    assert google.faults.requests == 6 and gcs.read(address) == b"x"


def test_every_request_is_counted(google: object_stores.Proxy, gcs: Store) -> None:
    """Ours, those of Orbax's files, and those of its arrays."""
    before = gcs.usage()
    content = bytes(100_003)
    address = Address("gs", object_stores.BUCKET, "counted/ours")
    gcs.write(address, content)
    assert gcs.read_version(address) is not None
    epath.Path(f"{NAME}/counted/file").write_bytes(content)
    arrays = {"driver": "gcs", "bucket": object_stores.BUCKET, "path": "counted/"}
    opened = tensorstore.KvStore.open(arrays).result()
    opened.write("array", content).result()
    assert len(opened.read("array").result().value) == len(content)
    now = gcs.usage()
    asked, written, read = (
        getattr(now, name) - getattr(before, name) for name in ("requests", "written", "read")
    )
    assert asked == google.faults.requests > 6
    assert 0 <= written - 3 * len(content) < 1_000 and 0 <= read - 2 * len(content) < 20_000
