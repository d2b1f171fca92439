"""gcsfs without its own tries, counted; and, for Orbax, tried for as long as all else.

gcsfs tries a request six times, half a minute in all. Where the answer to a conditional write is
lost, its next try tells that the condition does not hold, and nobody learns that the first one has
succeeded. What it raises in the end is of many kinds, and a save by Orbax, which writes all but
arrays through it, would end with a traceback. To be deleted when gcsfs lets its users say how often
it tries.
"""

import asyncio
from typing import Any, NoReturn

import aiohttp
import fsspec
import google.auth.exceptions
import requests
from gcsfs import core
from gcsfs.retry import HttpError

from transformer.errors import UserError
from transformer.storage.store import Patience, Unreachable, Usage

BUSY = {408, 429, *range(500, 505)}
LOST = (
    aiohttp.ClientError,
    requests.exceptions.RequestException,
    google.auth.exceptions.TransportError,
    TimeoutError,
    ConnectionError,
)
RENEWED = (1.0, 4.0)  # seconds in which credentials that have run out are replaced
_once = core.GCSFileSystem._request.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]


class SingleTries(core.GCSFileSystem):
    """Sends each request once, and counts it, whatever comes back.

    Only one whose credentials have run out meanwhile is sent again, with those of that moment.
    """

    usage = Usage()  # of all of the process

    async def _request(self, method: str, path: str, *args: str, **options: Any) -> Any:
        data = options.get("data")
        for pause in (*RENEWED, None):
            self.usage.add(requests=1, written=_size(data))
            try:
                answer = await _once(self, method, path, *args, **options)
            except HttpError as error:
                if pause is None or error.code != 401 or "Invalid Credentials" not in str(error):
                    raise
                await asyncio.sleep(pause)
            else:
                self.usage.add(read=len(answer[3]))
                return answer


class PatientFiles(SingleTries):
    """What libraries get for gs://: it tries for as long as `Store` does, and raises the same."""

    async def _request(self, method: str, path: str, *args: str, **options: Any) -> Any:
        name = f"gs://{'/'.join(args)}" if args else self._format_path(path, args)
        patience = Patience(name)
        while True:
            try:
                answer = await super()._request(method, path, *args, **options)
            except (FileNotFoundError, FileExistsError):
                raise
            except Exception as error:  # gcsfs has a kind for each reason, and some for none
                try:
                    refuse(name, error)
                except Unreachable as unreachable:
                    await asyncio.sleep(patience.pause(unreachable))
            else:
                patience.end()
                return answer


def install() -> None:
    """Has whoever opens gs:// through fsspec, as Orbax does, get `PatientFiles`."""
    for name in ("gs", "gcs"):
        fsspec.register_implementation(name, PatientFiles, clobber=True)


def refuse(name: object, error: Exception) -> NoReturn:
    """Raises what an error of gcsfs means.

    Raises:
        Unreachable: the same request may succeed later.
        UserError: it will not; the message says why.
    """
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    code = str(error.code) if isinstance(error, HttpError) else ""
    code = int(code) if code.isdigit() else None
    if code in BUSY or isinstance(error, LOST):
        raise Unreachable(reason) from error
    if code == 401 or isinstance(error, google.auth.exceptions.GoogleAuthError):
        raise UserError(
            f"{name}: Google Cloud Storage takes no credentials of this machine ({reason}): "
            "`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS"
        ) from error
    if code == 403 or (isinstance(error, OSError) and reason.startswith("Forbidden")):
        raise UserError(
            f"{name}: no permission ({reason}): the account needs the role Storage Object User on "
            "the bucket"
        ) from error
    raise UserError(f"{name}: Google Cloud Storage refuses ({reason})") from error


def _size(data: Any) -> int:
    """Bytes of a request's body: none, bytes of some kind, or a file in memory."""
    return data.getbuffer().nbytes if hasattr(data, "getbuffer") else len(data or b"")
