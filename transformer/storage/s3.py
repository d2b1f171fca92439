"""Amazon S3 and what speaks its language, through s3fs: objects have ETags, and writes a condition.

Another store's address is given as to any tool of AWS: AWS_ENDPOINT_URL.
"""

import dataclasses
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import aiohttp
import botocore.exceptions
import s3fs
from fsspec import asyn

from transformer.errors import UserError
from transformer.storage.address import Address
from transformer.storage.store import Changed, Unreachable, Usage, Version

BUSY = {408, 429, 500, 502, 503, 504}
REPLACED = {409, 412}  # 409: another conditional write of this object is under way
LOST = (
    aiohttp.ClientError,
    botocore.exceptions.HTTPClientError,
    TimeoutError,
    ConnectionError,
)


class S3:
    """See `store.Client`. Credentials are those that AWS's own tools find on this machine."""

    def __init__(self) -> None:
        self._files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        self._usage = Usage()

    def usage(self) -> Usage:
        """All requests but those for credentials, and what boto tries again by itself."""
        return self._usage

    def read(self, address: Address) -> bytes:
        return self.read_version(address)[0]

    def read_version(self, address: Address) -> tuple[bytes, Version]:
        content, answer = self._get(address)
        age = (_now(answer) - answer["LastModified"]).total_seconds()
        return content, Version(answer["ETag"], max(age, 0.0))

    def size(self, address: Address) -> tuple[int, str]:
        answer = self._call(address, "head_object", **_names(address))
        return answer["ContentLength"], answer["ETag"]

    def read_range(self, address: Address, start: int, stop: int, version: str) -> bytes:
        try:
            content, _ = self._get(address, IfMatch=version, Range=f"bytes={start}-{stop - 1}")
        except FileNotFoundError:
            raise Changed from None
        if len(content) != stop - start:
            raise Unreachable("it did not give all bytes")
        return content

    def write(self, address: Address, content: bytes) -> None:
        self._put(address, content)

    def replace(self, address: Address, content: bytes, version: Version | None) -> str:
        condition = {"IfMatch": version.id} if version else {"IfNoneMatch": "*"}
        try:
            return self._put(address, content, **condition)
        except FileNotFoundError:  # what was to be replaced is gone
            raise Changed from None

    def list(self, address: Address) -> dict[Address, tuple[int, float]]:
        objects: dict[Address, tuple[int, float]] = {}
        more: dict[str, str] = {}
        prefix = f"{address.key}/" if address.key else ""
        while True:
            try:
                page = self._call(
                    address, "list_objects_v2", Bucket=address.bucket, Prefix=prefix, **more
                )
            except FileNotFoundError:
                raise UserError(
                    f"{address}: there is no bucket {address.bucket}, or it is not yours to see: "
                    "make it, or mend its name"
                ) from None
            for item in page.get("Contents", ()):
                age = (_now(page) - item["LastModified"]).total_seconds()
                objects[dataclasses.replace(address, key=item["Key"])] = item["Size"], age
            if not (token := page.get("NextContinuationToken")):
                return objects
            more = {"ContinuationToken": token}

    def delete(self, address: Address) -> None:
        self._call(address, "delete_object", **_names(address))

    def _get(self, address: Address, **options: str) -> tuple[bytes, dict[str, Any]]:
        async def get() -> tuple[bytes, dict[str, Any]]:
            answer = await self._files._call_s3("get_object", **_names(address), **options)
            return await answer["Body"].read(), answer

        content, answer = self._try(address, lambda: asyn.sync(self._files.loop, get))
        self._usage.add(read=len(content))
        return content, answer

    def _put(self, address: Address, content: bytes, **condition: str) -> str:
        self._usage.add(written=len(content))
        answer = self._call(address, "put_object", **_names(address), Body=content, **condition)
        return answer["ETag"]

    def _call(self, address: Address, method: str, **options: Any) -> Any:
        return self._try(address, lambda: self._files.call_s3(method, **options))

    def _try(self, address: Address, request: Any) -> Any:
        self._usage.add(requests=1)
        try:
            return request()
        except Exception as error:  # s3fs has a kind for each reason, and some for none
            _refuse(address, error)


def _refuse(address: Address, error: Exception) -> NoReturn:
    """Raises what an error of s3fs means."""
    answer = getattr(error.__cause__, "response", None) or {}
    code = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    if code in REPLACED or isinstance(error, FileExistsError):
        raise Changed from error
    if code in BUSY or isinstance(error, LOST):
        raise Unreachable(reason) from error
    if isinstance(error, FileNotFoundError):
        if answer.get("Error", {}).get("Code") == "NoSuchBucket":
            raise UserError(
                f"{address}: there is no bucket {address.bucket}: make it, or mend its name"
            ) from error
        raise error
    if isinstance(error, botocore.exceptions.NoCredentialsError):
        raise UserError(
            f"{address}: this machine has no credentials for S3 ({reason}): `aws configure`, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    if isinstance(error, PermissionError):
        raise UserError(
            f"{address}: no permission ({reason}): the account must read, write, list and delete "
            f"objects of the bucket {address.bucket}"
        ) from error
    raise UserError(f"{address}: S3 refuses ({reason})") from error


def _names(address: Address) -> dict[str, str]:
    return {"Bucket": address.bucket, "Key": address.key}


def _now(answer: dict[str, Any]) -> Any:
    """The store's time when it answered."""
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
