"""What a command's process is set to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transformer.upstream import cpu

HUGE, ON_REQUEST = "glibc.malloc.hugetlb=1", "always [madvise] never"
FAULTS = """
import resource, statistics, sys
from transformer.upstream import cpu
if sys.argv[1] == "huge":
    cpu.ask_for_huge_pages()
import jax, jax.numpy as jnp
step = jax.jit(lambda x: (x @ x.T) @ x)  # holds 64 MiB
x = jnp.ones((4_096, 8))
faults = []
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(statistics.median(faults))
"""


@pytest.mark.skipif(not cpu._has_huge_pages(), reason="the kernel gives no huge pages on request")
def test_a_program_that_runs_again_takes_huge_pages() -> None:
    def faults(pages: str) -> float:
        environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
        environment["JAX_PLATFORMS"] = "cpu"
        command = [sys.executable, "-c", FAULTS, pages]
        return float(subprocess.run(command, env=environment, check=True, stdout=-1).stdout)

    assert faults("small") > 5 * faults("huge")


@pytest.mark.parametrize(
    ("kernel", "chosen", "asked", "libc"),
    [
        (ON_REQUEST, "", HUGE, "2.36"),
        (ON_REQUEST, "glibc.mem.tagging=0", f"glibc.mem.tagging=0:{HUGE}", "2.35"),
        (ON_REQUEST, "glibc.malloc.hugetlb=0", None, "2.36"),
        (ON_REQUEST, "", None, "2.34"),
        (ON_REQUEST, "", None, ""),
        ("[always] madvise never", "", None, "2.36"),
        ("always madvise [never]", "", None, "2.36"),
        (None, "", None, "2.36"),
    ],
)
def test_huge_pages_are_asked_for_once_and_only_where_they_are_given_on_request(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kernel: str | None,
    chosen: str,
    asked: str | None,
    libc: str,
) -> None:
    if kernel:
        (tmp_path / "enabled").write_text(f"{kernel}\n")
    started = []
    monkeypatch.setattr(cpu, "HUGE_PAGES", tmp_path / "enabled")
    monkeypatch.setattr(cpu.platform, "libc_ver", lambda: ("glibc", libc) if libc else ("", ""))
    monkeypatch.setattr(cpu.os, "execv", lambda *command: started.append(command))
    monkeypatch.setenv("GLIBC_TUNABLES", chosen)
    cpu.ask_for_huge_pages()
    cpu.ask_for_huge_pages()
    assert started == ([(sys.executable, sys.orig_argv)] if asked else [])
    assert os.environ["GLIBC_TUNABLES"] == (asked or chosen)


CORES = cpu.cores()
THREADS = """
import os
from pathlib import Path
from transformer import runtime, streams
runtime.prepare()
import jax
jax.numpy.ones(3).block_until_ready()
names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
print(jax.device_count(), sum(name.startswith("tf_XLAEigen") for name in names))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted as Linux tells them")
@pytest.mark.parametrize(
    ("variables", "devices", "threads"),
    [
        ({"JAX_NUM_CPU_DEVICES": "8"}, 8, max(128, CORES)),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, 4, max(64, CORES)),
        ({"JAX_NUM_CPU_DEVICES": "8", "NPROC": "9"}, 8, 9),
        ({}, 1, CORES),
    ],
)
def test_devices_that_wait_for_each_other_have_threads_enough(
    tmp_path: Path, variables: dict[str, str], devices: int, threads: int
) -> None:
    set_here = {"JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "NPROC"}
    environment = {k: v for k, v in os.environ.items() if k not in set_here}
    environment |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path), **variables}
    command = [sys.executable, "-c", THREADS]
    told = subprocess.run(command, env=environment, check=True, stdout=-1, text=True).stdout
    assert told.split() == [str(devices), str(threads)]


@pytest.mark.skipif(not cpu._has_huge_pages(), reason="none are given on request")
def test_a_command_asks_for_huge_pages_and_who_calls_it_from_python_does_not() -> None:
    script = """
import sys
sys.argv = ["transformer", "--help"]
import atexit, os
atexit.register(lambda: print(os.environ.get("GLIBC_TUNABLES")))
from transformer.__main__ import main
main()
"""
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    told = subprocess.run(
        [sys.executable], input=script, env=environment, text=True, check=True, stdout=-1
    ).stdout
    assert "usage: transformer" in told and told.endswith("None\n")
    command = [sys.executable, "-X", "importtime", "-m", "transformer", "--help"]
    started = subprocess.run(command, env=environment, text=True, check=True, capture_output=True)
    assert started.stderr.count("transformer.options") == 2, "it was started anew, once"
