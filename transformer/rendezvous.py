"""The processes of a run meet before JAX does: who is missing, and who was told something else.

JAX takes a wrong number of processes in silence or aborts in C++, and says nothing while it waits.
So processes that name their coordinator meet at its address first. Each says who it is, one JSON
object a line; process 0 answers all of them with one line, when all are there or one is wrong:

    {"run": "transformer", "process": 1, "processes": 2}        to process 0
    {"run": "transformer"}                                      from it, at once
    {"refused": ""}                                             from it, once all are there
"""

import contextlib
import errno
import json
import logging
import selectors
import socket
import time
from typing import Any

from transformer import files
from transformer.errors import UserError

log = logging.getLogger(__name__)

KEY = "config.distributed"
GREETING = {"run": "transformer"}
LONGEST = 4_096  # bytes of a line
FIRST_WORD, AGAIN = 5.0, 30.0  # seconds until it is said what is waited for, and then again
GRACE = 30.0  # seconds for the word of process 0 to come, which keeps the time
RETRY = 0.3  # seconds


def meet(coordinator: str, *, processes: int, process: int, timeout: float) -> None:
    """Returns when all processes of the run are there and agree on how many they are.

    Args:
        coordinator: host:port of process 0.
        processes: how many there are.
        process: which this one is.
        timeout: seconds to wait for the others.

    Raises:
        UserError: one did not come, was told another number, or ended; the same line in all.
    """
    if processes == 1:
        return
    host, _, port = coordinator.rpartition(":")
    patience = _Patience(timeout)
    if process == 0:
        refused = _Host(processes, patience).gather(coordinator, int(port))
    else:
        refused = _visit(coordinator, (host.strip("[]"), int(port)), processes, process, patience)
    if refused:
        raise UserError(f"{KEY}: {refused}")


class _Patience:
    """How long one waits, and when it is said for what."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._began = time.monotonic()
        self._next = FIRST_WORD

    @property
    def left(self) -> float:
        return self._began + self.seconds - time.monotonic()

    def say(self, what: str) -> None:
        """Logs what is waited for, now and then."""
        waited = time.monotonic() - self._began
        if waited >= self._next:
            self._next += AGAIN
            log.info("%s (%.0f s so far, %.0f s at most)", what, waited, self.seconds)


class _Host:
    """Process 0, to which the others come."""

    def __init__(self, processes: int, patience: _Patience):
        self._processes, self._patience = processes, patience
        self._here: dict[int, socket.socket] = {}
        self._heard: dict[socket.socket, bytes] = {}  # what each has said so far

    def gather(self, coordinator: str, port: int) -> str:
        """Why the run cannot begin; "" where it can."""
        with contextlib.ExitStack() as stack:
            try:
                server = stack.enter_context(_server(port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return (
                        f"coordinator={coordinator}: port {port} is in use on this machine: "
                        "name another one to all processes"
                    )
                return f"coordinator={coordinator}: {error.strerror}: name a port of process 0"
            ready = stack.enter_context(selectors.DefaultSelector())
            ready.register(server, selectors.EVENT_READ)
            refused = self._listen(server, ready)
            for peer in self._heard:
                _send(peer, {"refused": refused})
                peer.close()
            return refused

    def _listen(self, server: socket.socket, ready: selectors.BaseSelector) -> str:
        while len(self._here) < self._processes - 1:
            missing = [str(i) for i in range(1, self._processes) if i not in self._here]
            which = f"process{'es' if missing[1:] else ''} {', '.join(missing[:8])}"
            which += f" and {len(missing) - 8} more" if missing[8:] else ""
            if self._patience.left <= 0:
                return (
                    f"process 0 waited {self._patience.seconds:.0f} s for {which} of "
                    f"{self._processes}, which did not come: look at what they say, or raise "
                    "distributed.timeout"
                )
            self._patience.say(f"process 0 waits for {which} of {self._processes}")
            for key, _ in ready.select(timeout=RETRY):
                if key.fileobj is server:
                    with contextlib.suppress(OSError):
                        peer, _ = server.accept()
                        peer.setblocking(False)
                        _send(peer, GREETING)
                        self._heard[peer] = b""
                        ready.register(peer, selectors.EVENT_READ)
                elif refused := self._hear(key.fileobj, ready):
                    return refused
        return ""

    def _hear(self, peer: Any, ready: selectors.BaseSelector) -> str:
        """What a peer says: why the run cannot begin, or ""."""
        try:
            heard = peer.recv(LONGEST)
        except BlockingIOError:
            return ""
        except OSError:
            heard = b""
        process = next((i for i, other in self._here.items() if other is peer), None)
        if process is not None:  # it has nothing more to say
            return f"process {process} ended before the run began: see what it says"
        self._heard[peer] += heard
        if heard and b"\n" not in self._heard[peer] and len(self._heard[peer]) < LONGEST:
            return ""
        hello = _parse(self._heard[peer]) or {}
        process, processes = hello.get("process"), hello.get("processes")
        if not isinstance(process, int) or not isinstance(processes, int):  # nobody of ours
            ready.unregister(peer)
            del self._heard[peer]
            peer.close()
            return ""
        if processes != self._processes:
            return (
                f"process {process} was told distributed.processes={processes}, process 0 "
                f"{self._processes}: tell all the same"
            )
        if process in self._here or not 0 < process < processes:
            return f"two processes were told distributed.process={process}: number each once"
        self._here[process] = peer
        return ""


def _visit(
    coordinator: str, address: tuple[str, int], processes: int, process: int, patience: _Patience
) -> str:
    """Comes to process 0 and waits for its word: why the run cannot begin, or ""."""
    strange = False
    while patience.left > 0:
        who = f"process {process} waits for process 0 at {coordinator}"
        patience.say(f"{who}, where something else answers" if strange else who)
        try:
            with socket.create_connection(address, timeout=max(RETRY, 1.0)) as server:
                _send(server, {**GREETING, "process": process, "processes": processes})
                lines = server.makefile("rb")
                greeting = _parse(lines.readline(LONGEST))
                strange = greeting is None
                if greeting is not None:
                    return _word(server, lines, process, patience)
        except OSError:  # not there yet
            pass
        time.sleep(RETRY)
    return (
        f"process {process} waited {patience.seconds:.0f} s for process 0 at {coordinator}, "
        + ("where something else answers" if strange else "which did not come")
        + ": look at what it says, or raise distributed.timeout"
    )


def _word(server: socket.socket, lines: Any, process: int, patience: _Patience) -> str:
    server.settimeout(None)
    with selectors.DefaultSelector() as ready:
        ready.register(server, selectors.EVENT_READ)
        while patience.left > -GRACE:
            patience.say(f"process {process} waits until process 0 has all others")
            if ready.select(timeout=RETRY):
                word = _parse(lines.readline(LONGEST))
                if word is None or not isinstance(word.get("refused"), str):
                    return "process 0 ended before the run began: see what it says"
                return word["refused"]
    return "process 0 says nothing: look at it"


def _server(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            family = socket.AF_INET6
            return socket.create_server(("", port), family=family, dualstack_ipv6=True, backlog=512)
    return socket.create_server(("", port), backlog=512)


def _send(peer: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # who is gone does not hear it
        peer.sendall(json.dumps(message).encode() + b"\n")


def _parse(line: bytes) -> dict[str, Any] | None:
    """A message of ours; None for anything else."""
    try:
        message = files.parse_json(line)
    except files.Damaged:
        return None
    return message if "refused" in message or message.get("run") == GREETING["run"] else None
