"""The process of a command: how it ends, and what is set before it computes."""

import enum
import logging
import os
import signal
import stat
import sys
import tempfile
from pathlib import Path

from transformer.errors import UserError
from transformer.files import local_path
from transformer.upstream import cpu

log = logging.getLogger(__name__)


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
    for noisy in ("absl", "orbax", "asyncio", "gcsfs", "s3fs", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    default = sys.unraisablehook
    sys.unraisablehook = lambda args: None if _is_orphaned(args.exc_value) else default(args)
    enable_compilation_cache()
    cpu.widen_thread_pool()


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
