"""TensorBoard's event file, written in the thread that has the numbers."""

import shutil
import tempfile
import time
import weakref
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.summary import scalar, text

from transformer import streams
from transformer.files import AnyPath
from transformer.storage import BucketPath


class EventWriter:
    """Appends to a folder's events, in a file of its own.

    tensorboardX's own writer has a thread behind a queue of ten events: once a full disk has ended
    that thread, the next events wait for ever. Here an error is raised where it happens.

    Args:
        folder: `<workdir>/tensorboard`.
        first: the step from which this file counts; TensorBoard hides older files' events from it.
    """

    def __init__(self, folder: AnyPath, first: int):
        self._folder, self._sent = folder, 0
        if isinstance(folder, BucketPath):  # tensorboardX would send the whole file at each flush
            self._local = Path(tempfile.mkdtemp(prefix="events-"))
            weakref.finalize(self, shutil.rmtree, self._local, ignore_errors=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._local = folder
        # Of a relative path tensorboardX takes what stands before a colon for a bucket's scheme.
        self._events = EventsWriter(str(self._local.absolute() / "events"))
        self._add(first, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._add(step, summary=scalar(tag, value))

    def text(self, tag: str, markdown: str, step: int) -> None:
        self._add(step, summary=text(tag, markdown))

    def flush(self) -> None:
        with streams.naming(str(self._folder)):
            self._events.flush()
            self._send()

    def close(self) -> None:
        with streams.naming(str(self._folder)):
            self._events.close()
            self._send()

    def _send(self) -> None:
        if isinstance(self._folder, BucketPath):
            (path,) = self._local.iterdir()
            content = path.read_bytes()[self._sent :]
            (self._folder / path.name).append(content)
            self._sent += len(content)

    def _add(self, step: int, **content: object) -> None:
        with streams.naming(str(self._folder)):
            self._events.write_event(Event(wall_time=time.time(), step=step, **content))
