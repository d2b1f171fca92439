"""The process a command runs in: its exit codes, its compilation cache, and a record of it all."""

import contextlib
import enum
import importlib.metadata
import logging
import os
import platform
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer import __version__
from transformer.errors import UserError
from transformer.files import local_path
from transformer.upstream import cpu

log = logging.getLogger(__name__)
FLAGS = ("XLA_", "JAX_", "LIBTPU_", "GLIBC_TUNABLES")  # how variables begin that results depend on
CHUNK_BYTES = 2**22  # of standard input, held at once at most, but for a line


class Exit(enum.IntEnum):
    """What the exit code tells a launcher."""

    DONE = 0
    ERROR = 1
    PREEMPTED = 42  # stopped by a signal, all saved: start the same command to go on


def stop_signals() -> list[signal.Signals]:
    """The signals that ask a command to end: Ctrl-C's, a scheduler's, a closed terminal's.

    The last stays ignored where it was when this process started (`nohup`).
    """
    closed = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if closed else [])]


def say(message: bytes) -> None:
    """Writes to standard error from a signal's handler.

    Where the terminal is gone, what this process still has to say goes nowhere, but does not fail.
    """
    try:
        os.write(2, message)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            with contextlib.suppress(OSError):
                os.write(stream, b"")
                continue
            os.dup2(nowhere, stream)
        os.close(nowhere)


def output(text: str) -> None:
    """Writes to standard output at once, so that what cannot be written is known here.

    Raises:
        OSError: it cannot be, and names standard output.
    """
    with naming("standard output"):
        try:
            print(text, end="", flush=True)
        except OSError:
            # What is left of it goes nowhere: when the process ends, it would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise


@contextlib.contextmanager
def naming(what: str) -> Iterator[None]:
    """Has an OSError that names no file name this one: that of a write does not know its file."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, what) from error


def cache_dir(configured: str) -> Path:
    """The folder of derived data: as configured, $XDG_CACHE_HOME/transformer, or ~/.cache/...

    Whoever has no home, as in a container, has a folder of their own among temporary files.

    Raises:
        UserError: what is configured is no folder of a disk, or the temporary one is another's.
    """
    if configured:
        return _expanded(local_path(configured))
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "transformer"
    except RuntimeError:
        pass
    folder = Path(tempfile.gettempdir()) / f"transformer-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o22:
        # Compiled programs in it are code: nobody else may have put them there.
        raise UserError(f"there is no home folder, and {folder} is another user's: set HOME")
    return folder


def _expanded(path: Path) -> Path:
    """A path whose ~ is the home folder. Raises UserError where there is none."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: {error}: write the whole path") from error


def prepare() -> None:
    """For a command that computes: messages on standard error, programs kept."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("transformer").setLevel(logging.INFO)
    for noisy in ("jax", "matplotlib", "tensorflow_datasets"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # A checkpoint that cannot be written or read is our one line to say; Orbax logs pages of it.
    for noisy in ("absl", "orbax", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    default = sys.unraisablehook
    sys.unraisablehook = lambda args: None if _is_orphaned(args.exc_value) else default(args)
    enable_compilation_cache()
    cpu.widen_thread_pool()


@dataclass(frozen=True)
class BadLine:
    """A line of input that has no translation."""

    why: str  # as what follows "line 3 "


def standard_input(size: int, longest: int) -> Iterator[tuple[int, list[str | BadLine]]]:
    """Yields standard input's lines, `size` at a time, with the number of the first, from 1.

    A line that is not UTF-8, or has more than `longest` bytes, is bad; what is too long is not
    kept. Fewer lines come at once where they are long, so that memory does not depend on the input.
    """
    size = 1 if sys.stdin.isatty() else size
    first, lines, held = 1, [], 0
    while raw := sys.stdin.buffer.readline(longest + 1):
        held += len(raw)
        if len(raw) > longest and not raw.endswith(b"\n"):
            lines.append(BadLine(f"is longer than {longest:,} bytes"))
            while raw and not raw.endswith(b"\n"):
                raw = sys.stdin.buffer.readline(longest)
        else:
            try:
                lines.append(raw.decode("utf-8").rstrip("\r\n"))
            except UnicodeDecodeError as error:
                lines.append(BadLine(f"is not UTF-8 text (byte {error.start + 1})"))
        if len(lines) == size or held > CHUNK_BYTES:
            yield first, lines
            first, lines, held = first + len(lines), [], 0
    if lines:
        yield first, lines


def report() -> None:
    """Says how many programs were compiled, and how long that took; nothing where none was."""
    if "jax" not in sys.modules:
        return
    import jax

    from transformer.upstream import compilation_cache

    programs = compilation_cache.programs()
    if jax.process_index() == 0 and programs.compiled + programs.cached:
        log.info("%s", programs)


def _is_orphaned(error: BaseException | None) -> bool:
    """Whether TensorStore reports to a save that another of its errors has ended already."""
    return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the second run of anything starts in seconds."""
    import jax

    from transformer.upstream import compilation_cache

    compilation_cache.install()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache_dir("") / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def describe() -> dict[str, Any]:
    """What a run's result may depend on beside its configuration: versions, flags, machine."""
    import jax

    devices = jax.devices()
    return {
        **describe_software(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cpu.cores(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
        "flags": {k: v for k, v in os.environ.items() if k.startswith(FLAGS)},
        "command": sys.argv,
    }


def describe_software() -> dict[str, Any]:
    """Versions of this package, of Python and of the packages that results depend on."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")
    return {
        "transformer": __version__,
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
    }


def _processor() -> str:
    """The processor's name, where the system says it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8", "replace").split("\n") if cpuinfo.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """The checkout's commit, "+changes" where files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        run = lambda *args: subprocess.run(  # noqa: E731
            ["git", *args], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        return run("rev-parse", "HEAD") + ("+changes" if run("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
