"""The most memory that there is for arrays, as devices and the system tell it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

from transformer.errors import UserError

GIB = 2**30
SYSTEM = Path("/")  # whose /proc and /sys are read


def require(needed: int, what: str, remedy: str) -> None:
    """Refuses what cannot fit into all memory that there is.

    Args:
        needed: bytes on all devices together.
        what: takes them, and how: "... take at least {}", whose {} is the number.
        remedy: what to do about it.

    Raises:
        UserError: names both numbers.
    """
    there = available_bytes()
    if there is not None and needed > there:
        took = what.format(f"{needed / GIB:,.1f} GiB")
        raise UserError(f"{took}, and there are {there / GIB:,.1f} GiB: {remedy}")


@contextlib.contextmanager
def exhausted_as(message: str) -> Iterator[None]:
    """Raises UserError with this message where a device runs out of memory."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(message) from error


def available_bytes() -> int | None:
    """What arrays of all devices can take at most; None where the system does not say."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and stats.get("bytes_limit"):
        return stats["bytes_limit"] * jax.device_count()
    left = [*_left_by_kernel(), *_left_by_cgroups()]
    return min(left) * jax.process_count() if left else None


def _left_by_kernel() -> Iterator[int]:
    values = _values(SYSTEM / "proc/meminfo")
    if "MemAvailable:" in values:
        yield 1024 * (values["MemAvailable:"] + values.get("SwapFree:", 0))


def _left_by_cgroups() -> Iterator[int]:
    """What the limits of this process's groups leave, of versions 1 and 2."""
    kinds = [("", "memory.max", "memory.current", "")]
    kinds += [("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")]
    own = _text(SYSTEM / "proc/self/cgroup").split("\n")
    for kind, limit, usage, prefix in kinds:
        paths = [line.split(":", 2)[2] for line in own if line.split(":")[1:2] == [kind]]
        for path in {"/", *paths}:
            folder = SYSTEM / "sys/fs/cgroup" / kind / path.lstrip("/")
            for group in (folder, *folder.parents):
                most, used = _text(group / limit).strip(), _text(group / usage).strip()
                if most.isdecimal() and used.isdecimal() and int(most) < 2**60:
                    stat = _values(group / "memory.stat")  # pages of files give way
                    pages = ("active_file", "inactive_file")
                    files = sum(stat.get(prefix + name, 0) for name in pages)
                    yield max(int(most) - int(used) + files, 0)


def _values(path: Path) -> dict[str, int]:
    rows = [line.split() for line in _text(path).split("\n")]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
