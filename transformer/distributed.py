"""How many processes one run has, how they meet, and how none waits for one that has failed.

Each process starts the same command. On TPU VMs, Slurm and GKE JAX finds the others by itself;
elsewhere the configuration's `distributed` section names the coordinator.

The first process that fails says so to the others, through the store of JAX's coordination service;
a thread in each of them looks for that word, prints it and ends the process. The service lives in
process 0, which therefore waits until the others have read.
"""

import atexit
import contextlib
import json
import logging
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np

from transformer import rendezvous
from transformer.errors import UserError
from transformer.nested import differences, value_at

log = logging.getLogger(__name__)
T = TypeVar("T")

FAILURE, LEFT = "transformer/failure", "transformer/left"  # keys of the store
FAREWELL = 30.0  # seconds that process 0 waits for the others to read why the run ends
LAST_STEP = 2.0  # seconds that it then leaves them to exit: without its service JAX aborts them
EVERY = 0.5  # seconds between two looks for another process's failure
SAID = 5.0  # seconds after which it is said what is waited for
A_DAY = 86_400.0


class Disagreement(UserError):
    """The processes of a run were not told the same; each of them raises it."""


_ending = threading.Lock()  # held by whoever says why this process ends
_uses: Counter[str] = Counter()  # of keys of the store, by name


def initialize(
    *, enabled: bool, coordinator: str, processes: int, process: int, timeout: float
) -> None:
    """Joins the run's other processes; must come before anything touches a device.

    Raises:
        UserError: some but not all of coordinator, processes and process are given, or the
            processes do not come together.
    """
    if not enabled:
        return
    given = (bool(coordinator), processes > 0, process >= 0)
    if any(given) and not all(given):
        raise UserError(
            "config.distributed: give coordinator, processes and process together, or none of them"
        )
    named: dict[str, Any] = {}
    if all(given):
        rendezvous.meet(coordinator, processes=processes, process=process, timeout=timeout)
        named = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
            # JAX would else ask Slurm or Open MPI all the same, and see one GPU of a node.
            "cluster_detection_method": "deactivate",
        }
    # JAX says nothing while it waits, and aborts in C++ when it has waited for long enough.
    waiting = _after(SAID, lambda: log.info("waiting for the other processes of the run"))
    over = _after(timeout, lambda: _end(f"the other processes did not come in {timeout:.0f} s"))
    try:
        jax.distributed.initialize(
            **named,
            initialization_timeout=int(timeout) + 60,
            heartbeat_timeout_seconds=60,
            shutdown_timeout_seconds=60,
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"config.distributed: JAX does not find the other processes here ({reason}): give "
            "coordinator, processes and process"
        ) from error
    finally:
        waiting.cancel()
        over.cancel()
    if jax.process_count() > 1:
        _Watch().start()


def _after(seconds: float, work: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()
    return timer


def count() -> int:
    """How many processes the run has."""
    return jax.process_count()


def index() -> int:
    """The number of this process among them, from 0."""
    return jax.process_index()


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def agree(what: str, value: Any, instead: str) -> None:
    """Compares what must be the same in all processes; each must ask, in the same order.

    Args:
        what: names the value, for the error.
        value: JSON; of nested mappings the error names the keys that differ.
        instead: what to do about it.

    Raises:
        Disagreement: a process has another value than process 0; the same line in all of them.
    """
    if jax.process_count() == 1:
        return
    key, client = f"transformer/agree/{_next('agree')}", _client()
    client.key_value_set(f"{key}/{jax.process_index()}", json.dumps(value))
    if is_first():
        verdict = ""
        for process in range(1, jax.process_count()):
            theirs = json.loads(_wait_for(f"{key}/{process}", f"process {process} with its {what}"))
            if verdict := _difference(what, value, theirs, process):
                verdict += f": {instead}"
                break
        client.key_value_set(f"{key}/verdict", verdict)
    if verdict := _wait_for(f"{key}/verdict", f"the others with their {what}"):
        raise Disagreement(verdict)


def _difference(what: str, ours: Any, theirs: Any, process: int) -> str:
    ours = json.loads(json.dumps(ours))
    if ours == theirs:
        return ""
    if not isinstance(ours, dict):
        return f"process {process} has another {what} than process 0"
    keys = differences(ours, theirs)
    differences_text = "; ".join(
        f"{key} is {value_at(theirs, key)!r} there, {value_at(ours, key)!r} here"
        for key in keys[:4]
    )
    more = "; ..." if keys[4:] else ""
    return f"process {process} has another {what} than process 0 ({differences_text}{more})"


def barrier(name: str) -> None:
    """Returns when all processes have reached the barrier of this name."""
    if jax.process_count() > 1:
        number = _next(f"barrier {name}")
        waiting = _after(SAID, lambda: log.info("waiting for the other processes (%s)", name))
        try:
            _client().wait_at_barrier(f"transformer/{name}/{number}", int(1000 * A_DAY))
        finally:
            waiting.cancel()


def first_then_all(name: str, work: Callable[[], T]) -> T | None:
    """`work` in the first process, while the others wait for it; its result there, None in them."""
    result = work() if is_first() else None
    barrier(name)
    return result


def all_true(mine: bool) -> bool:
    """Whether this holds in every process; each must ask."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.asarray(mine)).all())


def leave(code: int, error: BaseException, show: Callable[[], object]) -> NoReturn:
    """Ends a process of a run of several because of an error, and with it the others.

    At once: unwinding would end in JAX's shutdown barrier, which the others, still in a collective,
    never reach.

    Args:
        code: the exit code.
        error: the reason. The others print its last line, but for a Disagreement, which all have.
            Of one that is no UserError another process may be the cause: then that one's is shown.
        show: prints it.
    """
    if not _ending.acquire(blocking=False):  # the thread is printing another's reason, and ends us
        time.sleep(A_DAY)
    cause = "" if isinstance(error, UserError) else _first_failure()
    if cause:
        print(f"transformer: {cause}", file=sys.stderr, flush=True)
    else:
        show()
        if not isinstance(error, Disagreement):
            reason = str(error) if isinstance(error, UserError | OSError) else _last_line(error)
            message = json.dumps({"process": jax.process_index(), "reason": reason})
            with contextlib.suppress(Exception):  # another one was first, or process 0 is gone
                _client().key_value_set(FAILURE, message)
    _bid_farewell()
    sys.stderr.flush()
    os._exit(code)


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


class _Watch(threading.Thread):
    """Ends this process when another one has failed.

    It asks now and then instead of waiting in C++, where the end of Python could not reach it.
    """

    def __init__(self) -> None:
        super().__init__(name="failures", daemon=True)
        self._over = threading.Event()
        atexit.register(self._stop_watching)

    def run(self) -> None:
        while not self._over.wait(EVERY):
            if (cause := _first_failure()) and _ending.acquire(blocking=False):
                _end(cause)

    def _stop_watching(self) -> None:
        self._over.set()
        self.join()


def _end(reason: str) -> NoReturn:
    print(f"transformer: {reason}", file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        _bid_farewell()
    os._exit(1)


def _first_failure() -> str:
    """The reason of the process that failed first, if that is another; else ""."""
    try:
        failure = json.loads(_client().key_value_try_get(FAILURE))
    except jax.errors.JaxRuntimeError:  # nobody has said anything; or process 0 is gone
        return ""
    if failure["process"] == jax.process_index():
        return ""
    return f"process {failure['process']}: {failure['reason']}"


def _bid_farewell() -> None:
    """Tells process 0 that this one needs its store no more; process 0 waits for that."""
    client = _client()
    with contextlib.suppress(Exception):  # one is dead, or was quicker
        if not is_first():
            client.key_value_set(f"{LEFT}/{jax.process_index()}", "")
            return
        until = time.monotonic() + FAREWELL
        for process in range(1, jax.process_count()):
            left = max(until - time.monotonic(), 0.001)
            client.blocking_key_value_get(f"{LEFT}/{process}", int(1000 * left))
        time.sleep(LAST_STEP)


def _wait_for(key: str, who: str) -> str:
    """A value of the store; says what is waited for where it does not come soon."""
    client = _client()
    try:
        return client.blocking_key_value_get(key, int(1000 * SAID))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
    log.info("waiting for %s", who)
    return client.blocking_key_value_get(key, int(1000 * A_DAY))


def _client() -> Any:
    """JAX's client of its coordination service, for which it has no public name."""
    from jax._src import distributed

    return distributed.global_state.client


def _next(name: str) -> int:
    """How often this was asked for: the same in all processes, as all ask in one order."""
    _uses[name] += 1
    return _uses[name]
