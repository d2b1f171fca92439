"""Processes meet, or learn in one line why they do not: threads stand for them."""

import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.processes import free_port
from transformer import rendezvous
from transformer.errors import UserError


def gather(port: int, *told: tuple[int, int], timeout: float = 30.0) -> list[str]:
    """What each process that was told (process, processes) ends with; "" = all are there."""

    def meet(process: int, processes: int) -> str:
        try:
            rendezvous.meet(
                f"127.0.0.1:{port}", processes=processes, process=process, timeout=timeout
            )
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(told)) as pool:
        return list(pool.map(lambda pair: meet(*pair), told))


def test_all_that_were_told_the_same_meet() -> None:
    assert gather(free_port(), (2, 4), (0, 4), (3, 4), (1, 4)) == ["", "", "", ""]


def test_the_port_is_free_for_jax_afterwards() -> None:
    port = free_port()
    assert gather(port, (0, 2), (1, 2)) == ["", ""]
    with socket.create_server(("", port)):
        pass


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ([(0, 2), (1, 3)], "process 1 was told distributed.processes=3, process 0 2"),
        ([(0, 3), (1, 2)], "process 1 was told distributed.processes=2, process 0 3"),
        ([(0, 3), (1, 3), (1, 3)], "two processes were told distributed.process=1"),
    ],
)
def test_what_does_not_fit_is_said_to_all(told: list[tuple[int, int]], named: str) -> None:
    lines = gather(free_port(), *told)
    assert len({*lines}) == 1 and named in lines[0]


def test_one_that_does_not_come_is_named_to_all() -> None:
    lines = gather(free_port(), (0, 4), (2, 4), timeout=1.0)
    assert len({*lines}) == 1 and "for processes 1, 3 of 4, which did not come" in lines[0]


def test_process_0_that_does_not_come_is_named() -> None:
    port = free_port()
    (line,) = gather(port, (1, 2), timeout=1.0)
    assert f"process 1 waited 1 s for process 0 at 127.0.0.1:{port}, which did not come" in line


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (line,) = gather(port, (0, 2))
    assert f"port {port} is in use on this machine" in line


def test_another_server_is_not_taken_for_process_0() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            while True:
                try:
                    peer, _ = other.accept()
                except OSError:
                    return
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                peer.close()

        threading.Thread(target=answer, daemon=True).start()
        (line,) = gather(other.getsockname()[1], (1, 2), timeout=1.0)
        other.shutdown(socket.SHUT_RDWR)
    assert "where something else answers" in line


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b"x" * 10_000, b"[[\n"])
def test_a_stranger_that_comes_to_process_0_disturbs_nobody(said: bytes) -> None:
    port = free_port()

    def visit() -> None:
        for _ in range(100):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
                    stranger.sendall(said)
                    stranger.recv(100)
                    return
            except OSError:
                time.sleep(0.05)

    stranger = threading.Thread(target=visit)
    stranger.start()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(gather, port, (0, 2))
        stranger.join()
        assert gather(port, (1, 2)) == [""]
        assert first.result() == [""]


def test_one_that_ends_before_the_run_begins_ends_all() -> None:
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gather, port, (0, 3))
        for _ in range(100):
            try:
                peer = socket.create_connection(("127.0.0.1", port), timeout=5)
                break
            except OSError:
                time.sleep(0.05)
        peer.sendall(b'{"run": "transformer", "process": 2, "processes": 3}\n')
        time.sleep(0.5)
        peer.close()
        (line,) = first.result()
    assert "process 2 ended before the run began" in line


def test_it_is_said_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rendezvous, "FIRST_WORD", 0.1)
    monkeypatch.setattr(rendezvous, "AGAIN", 0.1)  # whichever of the two comes first
    with caplog.at_level(logging.INFO):
        gather(free_port(), (0, 3), (2, 3), timeout=2.0)
    said = [record.getMessage() for record in caplog.records]
    assert any("process 0 waits for process 1 of 3" in line for line in said)
    assert any("process 2 waits until process 0 has all others" in line for line in said)
