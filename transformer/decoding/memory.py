"""Whether a search fits: the least memory that it takes, and the most that there is."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from transformer.errors import UserError

GIB = 2**30
SYSTEM = Path("/")  # whose /proc and /sys are read
SMALL = 100_000  # positions of all hypotheses: fewer are not looked at, which takes a while


def least_bytes(cache: Any, logits: Any, beam: int) -> int:
    """The bytes of one step of a search: its logits and its cache, of which reordering copies one
    array at a time.

    Args:
        cache: arrays, or their shapes; of all hypotheses.
        logits: the same.
        beam: hypotheses of a sentence; one alone is not reordered.
    """
    arrays = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache)]
    copied = max(arrays, default=0) if beam > 1 else 0
    return sum(arrays) + copied + logits.size * logits.dtype.itemsize


def bytes_of(program: Any) -> int:
    """What a compiled program works with on all devices; 0 where it does not say."""
    analysis = program.memory_analysis()
    return analysis.temp_size_in_bytes * jax.device_count() if analysis else 0


def refuse_too_large(needed: int, rows: int, length: int, beam: int, extra_length: int) -> None:
    """Refuses a search that cannot fit into all memory that there is.

    Raises:
        UserError: names the keys, and both numbers.
    """
    there = available_bytes()
    if there is not None and needed > there:
        raise UserError(
            f"decoding.beam={beam} and decoding.extra_length={extra_length} take at least "
            f"{needed / GIB:,.1f} GiB for {rows} sentences of {length} tokens, and there are "
            f"{there / GIB:,.1f} GiB: set them, or decoding.tokens_per_batch, lower"
        )


@contextlib.contextmanager
def said_in_one_line(beam: int, extra_length: int) -> Iterator[None]:
    """Raises UserError where a device runs out of memory all the same."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"the search runs out of memory with decoding.beam={beam} and decoding.extra_length="
            f"{extra_length}: set them, or decoding.tokens_per_batch, lower"
        ) from error


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
