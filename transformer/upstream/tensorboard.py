"""TensorBoard's event file, written in the thread that has the numbers."""

import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.summary import scalar, text

from transformer import streams


class EventWriter:
    """Appends to a folder's events, in a file of its own.

    tensorboardX's own writer has a thread behind a queue of ten events: once a full disk has ended
    that thread, the next events wait for ever. Here an error is raised where it happens.

    Args:
        folder: `<workdir>/tensorboard`.
        first: the step from which this file counts; TensorBoard hides older files' events from it.
    """

    def __init__(self, folder: Path, first: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = str(folder)
        # Of a relative path tensorboardX takes what stands before a colon for a bucket's scheme.
        self._events = EventsWriter(str(folder.absolute() / "events"))
        self._add(first, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._add(step, summary=scalar(tag, value))

    def text(self, tag: str, markdown: str, step: int) -> None:
        self._add(step, summary=text(tag, markdown))

    def flush(self) -> None:
        with streams.naming(self._folder):
            self._events.flush()

    def close(self) -> None:
        with streams.naming(self._folder):
            self._events.close()

    def _add(self, step: int, **content: object) -> None:
        with streams.naming(self._folder):
            self._events.write_event(Event(wall_time=time.time(), step=step, **content))
