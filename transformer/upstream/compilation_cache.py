"""Compiled programs: counted, and kept on disk, each written whole and checked when it is read.

JAX's own file cache writes in place and never writes again what is there: a process that is killed
while it writes leaves half a program, which every later run finds, warns of and compiles around.
"""

import contextlib
import functools
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache, compiler, distributed
from jax._src.compilation_cache_interface import CacheInterface

from transformer import files

log = logging.getLogger(__name__)

SUFFIX = ".checked"


class CheckedCache(CacheInterface):
    """A folder of files, one a program: its SHA-256, then the program as JAX wrote it.

    Any number of processes may use one folder. What is damaged is deleted, and so written anew.
    """

    def __init__(self, folder: Path):
        self._path = folder
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)

    def get(self, key: str) -> bytes | None:
        """The program of this key; None where there is none, or a damaged one."""
        path = self._path / (key + SUFFIX)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        digest, program = content[:32], content[32:]
        if hashlib.sha256(program).digest() == digest:
            return program
        log.warning("%s is damaged: to be compiled anew", path)
        with contextlib.suppress(OSError):  # one who may read it alone
            path.unlink()
        return None

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program, unless it is there. JAX turns an OSError into a warning."""
        path = self._path / (key + SUFFIX)
        if not path.exists():  # what is damaged is not: whoever read it has deleted it
            files.write(path, hashlib.sha256(value).digest() + value)


@dataclass
class Programs:
    """How many programs a process has come by, one a shape of each function."""

    compiled: int = 0
    cached: int = 0  # read from the cache instead
    seconds: float = 0.0  # of compiling and reading; tracing takes its own

    def __str__(self) -> str:
        return (
            f"programs: {self.compiled} compiled, {self.cached} from the cache, "
            f"in {self.seconds:.1f} s"
        )

    def _on_event(self, event: str, **_: object) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            self.cached += 1
            self.compiled -= 1  # whose duration comes all the same

    def _on_duration(self, event: str, duration_secs: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            self.compiled += 1
            self.seconds += duration_secs


@functools.cache
def programs() -> Programs:
    """This process's programs, counted from the first call on."""
    counted = Programs()
    jax.monitoring.register_event_listener(counted._on_event)
    jax.monitoring.register_event_duration_secs_listener(counted._on_duration)
    return counted


def install() -> None:
    """Makes this the cache of every folder that JAX is told to keep programs in, and counts.

    Buckets, whose objects are written whole anyway, and folders of limited size stay JAX's. Of a
    run's processes JAX lets the first alone keep programs; the others, on disks of their own, would
    compile at each start. With this cache each process keeps its own.
    """
    programs()
    get_theirs, write_theirs, ours = compilation_cache.get_file_cache, compiler._cache_write, False

    def get_file_cache(path: str) -> tuple[CacheInterface, str] | None:
        nonlocal ours
        limited = jax.config.jax_compilation_cache_max_size != -1  # pyright: ignore
        ours = not ("://" in path or limited)
        return (CheckedCache(Path(path)), path) if ours else get_theirs(path)

    def write(
        key: str, seconds: float, name: str, backend: Any, executable: Any, callbacks: Any
    ) -> None:
        if distributed.global_state.process_id == 0 or not ours or callbacks:
            write_theirs(key, seconds, name, backend, executable, callbacks)
            return
        try:
            compilation_cache.put_executable_and_time(key, name, executable, backend, int(seconds))
        except Exception as error:  # as JAX: it can be compiled again
            log.warning("the program %s is not kept: %s", name, error)

    compilation_cache.get_file_cache, compiler._cache_write = get_file_cache, write
