"""Settings of a CPU's process that XLA and the C library get wrong for us."""

import contextlib
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
THREADS_PER_DEVICE = 16


def widen_thread_pool() -> None:
    """Has XLA give several devices of one CPU threads enough; NPROC, if set, is left alone.

    A collective holds a thread until all of its devices have come. XLA has as many threads as cores
    or devices, whichever is more, and a device may wait in several collectives at once: then those
    that others wait for find no thread, and after 40 s the process aborts. A busy machine gets
    there. Must come before anything uses JAX's devices, which is when XLA reads NPROC.
    """
    devices = _cpu_devices()
    if devices > 1:
        os.environ.setdefault("NPROC", str(max(cores(), THREADS_PER_DEVICE * devices)))


def _cpu_devices() -> int:
    """How many devices JAX is told to make of the CPU."""
    import jax

    flags = os.environ.get("XLA_FLAGS", "")
    flag = re.search(r"--xla_force_host_platform_device_count=(\d+)", flags)
    config: Any = jax.config
    return max(config.jax_num_cpu_devices, int(flag[1]) if flag else 1)


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ask_for_huge_pages() -> None:
    """Has the C library back large blocks by huge pages, where the kernel gives them on request.

    A compiled program takes its workspace anew at every call, and on a CPU each training step would
    ask the kernel for it again, 4 KiB at a time. The C library reads its settings when a process
    starts, so this starts the command anew, as the same process; once: whoever calls it must be a
    command that has done nothing yet. Elsewhere than on Linux with glibc 2.35 nothing happens, and
    the kernel's "always" and "never" are obeyed.
    """
    chosen = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" in chosen or not _has_huge_pages():
        return
    huge = "glibc.malloc.hugetlb=1"
    os.environ["GLIBC_TUNABLES"] = f"{chosen}:{huge}" if chosen else huge
    with contextlib.suppress(OSError):  # then it goes on as it is
        os.execv(sys.executable, sys.orig_argv)


def _has_huge_pages() -> bool:
    """Whether this C library knows the setting, and the kernel gives them on request alone."""
    name, version = platform.libc_ver()
    if name != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 35):
        return False
    return HUGE_PAGES.exists() and "[madvise]" in HUGE_PAGES.read_text("ascii")
