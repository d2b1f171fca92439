"""Real servers of object stores on loopback: an emulator of Google's, moto for Amazon's.

The emulator and moto lie in `.venv/stores`, apart from what we need ourselves; `tests/run -m slow`
puts them there. Google's emulator ignores the condition of a conditional write, does not say of
which generation a content is, and forgets the session of a finished upload, where Google tells of
the object again. A proxy before it does all three, and answers 503, 401 or 403, waits or loses
connections where it is told to.
"""

import contextlib
import http.client
import http.server
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import s3fs

from tests.support.processes import ROOT, free_port
from transformer.storage.stores import open_store

STORES = ROOT / ".venv" / "stores"
BUCKET = "bucket"

Answer = tuple[int, dict[str, str], bytes]  # status, headers, content


@dataclass
class Faults:
    """What a proxy does besides passing requests on."""

    busy_until: float = 0.0  # monotonic seconds: 503 until then
    forbidden: str | None = None  # refused is a request whose address has this in it
    refusal: tuple[int, str] = (403, "not yours")  # how
    refusals: float = float("inf")  # so many of them
    delay: float = 0.0  # seconds before each answer
    lost: float = 0.0  # share of requests whose answer is lost, half of them before they are done
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    requests: int = 0
    refused: int = 0  # conditional writes


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before the emulator, and has a conditional write fail where its condition does."""

    daemon_threads = True

    def __init__(self, upstream: int):
        self.upstream, self.faults = upstream, Faults()
        self.conditional = threading.Lock()
        self.finished: dict[str, Answer] = {}  # of resumable uploads, by session
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """Asks the emulator itself: no fault comes between, and nothing is counted."""
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def names(self, prefix: str) -> list[str]:
        """The names of all objects that begin so."""
        query = urllib.parse.urlencode({"prefix": prefix})
        items = json.loads(self.ask("GET", f"/storage/v1/b/{BUCKET}/o?{query}")[2])["items"]
        return [item["name"] for item in items]

    def content(self, name: str) -> bytes | None:
        """An object's content; None where there is none."""
        path = f"/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, safe='')}?alt=media"
        status, _, content = self.ask("GET", path)
        return content if status == 200 else None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        faults = self.server.faults
        faults.requests += 1
        time.sleep(faults.delay)
        if time.monotonic() < faults.busy_until:
            return self._reply(503, {}, b'{"error": {"code": 503, "message": "busy"}}')
        named = faults.forbidden is not None and faults.forbidden in self.path
        if named and faults.refusals > 0:
            faults.refusals -= 1
            code, message = faults.refusal
            content = json.dumps({"error": {"code": code, "message": message}})
            return self._reply(code, {}, content.encode())
        lost = faults.draw.random() < faults.lost
        if lost and faults.draw.random() < 0.5:
            return self._hang_up()
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        (session,) = query.get("upload_id", [""])
        if session in self.server.finished:
            status, headers, content = self.server.finished[session]
        elif self.command == "POST" and "ifGenerationMatch" in query:
            with self.server.conditional:
                name, wanted = query["name"][0], query["ifGenerationMatch"][0]
                if self._generation(name) != wanted:
                    faults.refused += 1
                    status, headers, content = 412, {}, b'{"error": {"code": 412, "message": ""}}'
                else:
                    status, headers, content = self._pass_on(body)
        elif self.command == "GET" and query.get("alt") == ["media"]:
            with self.server.conditional:  # Google tells with the content which one it is
                name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path.split("/o/")[1])
                generation = self._generation(name)
                if query.get("generation", [generation]) != [generation]:
                    status, headers, content = 404, {}, b""
                else:
                    status, headers, content = self._range(*self._pass_on(body))
                headers["x-goog-generation"] = generation
        else:
            status, headers, content = self._pass_on(body)
            if session and status == 200:
                self.server.finished[session] = status, headers, content
        if lost:
            return self._hang_up()
        return self._reply(status, headers, content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _answer

    def _generation(self, name: str) -> str:
        bucket = self.path.split("/b/")[1].split("/")[0]
        path = f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"
        status, _, content = self.server.ask("GET", path)
        return json.loads(content)["generation"] if status == 200 else "0"

    def _range(self, status: int, headers: dict[str, str], content: bytes) -> Answer:
        """The bytes that were asked for, of an answer that has all of them."""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if status != 200 or not wanted:
            return status, headers, content
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return 206, headers, content[start:stop]

    def _pass_on(self, body: bytes) -> Answer:
        # With its own Host, of which the emulator makes the addresses that it answers with.
        return self.server.ask(self.command, self.path, body, dict(self.headers.items()))

    def _reply(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True


@contextlib.contextmanager
def google(faults: Faults | None = None) -> Iterator[Proxy]:
    """Google's store with one bucket; this process's environment has its address meanwhile."""
    port = free_port()
    command = ("gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}")
    with _server(port, *command, "--in-memory", f"--default-bucket={BUCKET}"):
        proxy = Proxy(port)
        proxy.faults = faults or proxy.faults
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        environment = {
            "STORAGE_EMULATOR_HOST": proxy.url,
            "TENSORSTORE_GCS_HTTP_URL": proxy.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        }
        try:
            with _environment(environment):
                yield proxy
        finally:
            proxy.shutdown()
            proxy.server_close()


@contextlib.contextmanager
def trouble(faults: Faults, kind: str, draw: random.Random) -> Iterator[None]:
    """Has a store be in trouble for the length of the block.

    busy    it answers 503 for 20 s, again and again, 5 to 30 s after the last time
    slow    it takes 200 ms for each request
    lost    the connection of one request in twenty is lost, before it is done or after it
    ""      it is not
    """
    over = threading.Event()

    def be_busy() -> None:
        while not over.wait(draw.uniform(5.0, 30.0)):
            faults.busy_until = time.monotonic() + 20.0
            over.wait(20.0)

    thread = threading.Thread(target=be_busy, daemon=True)
    if kind == "busy":
        thread.start()
    faults.delay = 0.2 if kind == "slow" else 0.0
    faults.lost = 0.05 if kind == "lost" else 0.0
    try:
        yield
    finally:
        over.set()
        if kind == "busy":
            thread.join()
        faults.busy_until = faults.delay = faults.lost = 0.0


@contextlib.contextmanager
def amazon() -> Iterator[str]:
    """Amazon's store with one bucket; this process's environment has its address meanwhile."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with (
        _server(port, "moto.server", "-H", "127.0.0.1", "-p", str(port)),
        _environment(environment),
    ):
        s3fs.S3FileSystem(skip_instance_cache=True).call_s3("create_bucket", Bucket=BUCKET)
        yield url


@contextlib.contextmanager
def _server(port: int, module: str, *arguments: str) -> Iterator[None]:
    if not STORES.exists():
        pytest.skip(f"{STORES} is not there: `tests/run -m slow` makes it")
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": str(STORES)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/")
                connection.getresponse().read()
                break
            assert process.poll() is None, f"{module} ended"
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets the variables for a while; stores that were opened under others are opened anew."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    open_store.cache_clear()
    try:
        yield
    finally:
        open_store.cache_clear()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
