"""Google Cloud Storage, through gcsfs: its objects have generations, and writes a condition."""

import dataclasses
import hashlib
import json
import os
import sys
import warnings
from base64 import b64encode
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from transformer.errors import UserError
from transformer.storage import gcs_requests
from transformer.storage.address import Address
from transformer.storage.store import LOOKS, Changed, Unreachable, Usage, Version


class GoogleCloudStorage:
    """See `store.Client`. Credentials are those that Google's own tools find on this machine."""

    def __init__(self) -> None:
        options: dict[str, Any] = {"project": os.environ.get("GOOGLE_CLOUD_PROJECT", "none")}
        if os.environ.get("STORAGE_EMULATOR_HOST"):
            options["token"] = "anon"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._files = gcs_requests.SingleTries(use_listings_cache=False, **options)
        gcs_requests.install()

    def usage(self) -> Usage:
        """All requests but those for credentials: ours, and Orbax's for arrays and for the rest."""
        return self._files.usage + _of_tensorstore()

    def read(self, address: Address) -> bytes:
        return self._call(address, "GET", "b/{}/o/{}", alt="media")[1]

    def read_version(self, address: Address) -> tuple[bytes, Version]:
        for _ in range(LOOKS):
            headers, known = self._call(address, "GET", "b/{}/o/{}", is_json=True)
            now = parsedate_to_datetime(headers["Date"])
            age = (now - datetime.fromisoformat(known["updated"])).total_seconds()
            try:
                content = self._call(
                    address, "GET", "b/{}/o/{}", alt="media", generation=known["generation"]
                )[1]
            except FileNotFoundError:  # replaced between the two
                continue
            if known.get("md5Hash") in (None, _md5(content)):  # a composite object has none
                return content, Version(known["generation"], max(age, 0.0))
        raise Unreachable("it is another content each time, or not the one that it says")

    def size(self, address: Address) -> tuple[int, str]:
        known = self._call(address, "GET", "b/{}/o/{}", is_json=True)[1]
        return int(known["size"]), known["generation"]

    def read_range(self, address: Address, start: int, stop: int, version: str) -> bytes:
        try:
            content = self._call(
                address, "GET", "b/{}/o/{}", alt="media", generation=version,
                headers={"Range": f"bytes={start}-{stop - 1}"},
            )[1]  # fmt: skip
        except FileNotFoundError:
            raise Changed from None
        if len(content) != stop - start:
            raise Unreachable("it did not give all bytes")
        return content

    def write(self, address: Address, content: bytes) -> None:
        self._upload(address, content)

    def replace(self, address: Address, content: bytes, version: Version | None) -> str:
        match = version.id if version else "0"
        return self._upload(address, content, ifGenerationMatch=match)["generation"]

    def list(self, address: Address) -> dict[Address, tuple[int, float]]:
        objects: dict[Address, tuple[int, float]] = {}
        more: dict[str, str] = {}
        prefix = f"{address.key}/" if address.key else ""
        while True:
            headers, page = self._call(
                address, "GET", "b/{}/o", keyed=False, is_json=True, prefix=prefix,
                fields="items(name,size,updated),nextPageToken", **more,
            )  # fmt: skip
            now = parsedate_to_datetime(headers["Date"])
            for item in page.get("items", ()):
                age = (now - datetime.fromisoformat(item["updated"])).total_seconds()
                objects[dataclasses.replace(address, key=item["name"])] = int(item["size"]), age
            if not (token := page.get("nextPageToken")):
                return objects
            more = {"pageToken": token}

    def delete(self, address: Address) -> None:
        self._call(address, "DELETE", "b/{}/o/{}")

    def _upload(self, address: Address, content: bytes, **condition: str) -> dict[str, Any]:
        url = f"{self._files.base.removesuffix('storage/v1/')}upload/storage/v1/b/{{}}/o"
        known = self._call(
            address, "POST", url, keyed=False, is_json=True, uploadType="media",
            name=address.key, data=content, **condition,
        )[1]  # fmt: skip
        if known["md5Hash"] != _md5(content):
            raise Unreachable("it did not take all bytes")
        return known

    def _call(
        self,
        address: Address,
        method: str,
        path: str,
        *,
        keyed: bool = True,
        is_json: bool = False,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Headers and content of an answer."""
        names = (address.bucket, address.key) if keyed else (address.bucket,)
        try:
            headers, content = self._files.call(method, path, *names, **options)  # pyright: ignore
        except FileExistsError:
            raise Changed from None
        except FileNotFoundError:
            if keyed:
                raise
            raise UserError(
                f"{address}: there is no bucket {address.bucket}, or it is not yours to see: make "
                "it, or mend its name"
            ) from None
        except Exception as error:  # gcsfs has a kind for each reason, and some for none
            gcs_requests.refuse(address, error)
        if is_json:
            return headers, json.loads(content)
        return headers, content


def _md5(content: bytes) -> str:
    return b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _of_tensorstore() -> Usage:
    """What TensorStore, which writes and reads Orbax's arrays, has sent and got over HTTP."""
    if "tensorstore" not in sys.modules:
        return Usage()
    found = sys.modules["tensorstore"].experimental_collect_matching_metrics("/tensorstore/http/")
    values = {metric["name"].rpartition("/")[2]: metric["values"][0] for metric in found}
    requests = values.get("request_started", {"value": 0})["value"]
    sizes = [values.get(name) for name in ("request_bytes", "response_bytes")]
    written, read = (round(size["count"] * size["mean"]) if size else 0 for size in sizes)
    return Usage(requests, written, read)
