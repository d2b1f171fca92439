"""Owning a folder in a bucket while this process lives: signs of life, thrice a term."""

import contextlib
import logging
import threading
from collections.abc import Iterator

from transformer.errors import UserError
from transformer.storage.folder import TERM, Folder

log = logging.getLogger(__name__)


@contextlib.contextmanager
def owning(folder: Folder) -> Iterator[None]:
    """Owns a folder until the end of the block.

    Raises:
        UserError: it has a living owner; or, at the end, what was written last cannot be.
    """
    folder.take()
    over = threading.Event()
    thread = threading.Thread(target=_renew, args=(folder, over), daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        with contextlib.suppress(UserError):  # the first reason is the one to say
            _end(folder, over, thread)
        raise
    _end(folder, over, thread)


def _end(folder: Folder, over: threading.Event, thread: threading.Thread) -> None:
    over.set()
    thread.join()
    folder.release()
    log.info("%s: %s", folder.address, folder.usage())


def _renew(folder: Folder, over: threading.Event) -> None:
    while not over.wait(TERM / 3.0):
        # What fails here stays to be written: the owner's next change meets it as well.
        with contextlib.suppress(UserError, OSError):
            folder.renew()
