"""What a command's process is set to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transformer import runtime

FAULTS = """
import resource, statistics, sys
from transformer import runtime
if sys.argv[1] == "huge":
    runtime.ask_for_huge_pages()
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


def on_request() -> bool:
    return runtime.HUGE_PAGES.exists() and "[madvise]" in runtime.HUGE_PAGES.read_text()


@pytest.mark.skipif(not on_request(), reason="the kernel gives no huge pages on request")
def test_a_program_that_runs_again_takes_huge_pages() -> None:
    def faults(pages: str) -> float:
        environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
        environment["JAX_PLATFORMS"] = "cpu"
        command = [sys.executable, "-c", FAULTS, pages]
        return float(subprocess.run(command, env=environment, check=True, stdout=-1).stdout)

    assert faults("small") > 5 * faults("huge")


@pytest.mark.parametrize(
    ("kernel", "chosen", "asked"),
    [
        ("always [madvise] never", "", "glibc.malloc.hugetlb=1"),
        (
            "always [madvise] never",
            "glibc.mem.tagging=0",
            "glibc.mem.tagging=0:glibc.malloc.hugetlb=1",
        ),
        ("always [madvise] never", "glibc.malloc.hugetlb=0", None),
        ("[always] madvise never", "", None),
        ("always madvise [never]", "", None),
        (None, "", None),
    ],
)
def test_huge_pages_are_asked_for_once_and_only_where_they_are_given_on_request(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kernel: str | None,
    chosen: str,
    asked: str | None,
) -> None:
    if kernel:
        (tmp_path / "enabled").write_text(f"{kernel}\n")
    started = []
    monkeypatch.setattr(runtime, "HUGE_PAGES", tmp_path / "enabled")
    monkeypatch.setattr(runtime.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(runtime.os, "execv", lambda *command: started.append(command))
    monkeypatch.setenv("GLIBC_TUNABLES", chosen)
    runtime.ask_for_huge_pages()
    runtime.ask_for_huge_pages()
    assert started == ([(sys.executable, sys.orig_argv)] if asked else [])
    assert os.environ["GLIBC_TUNABLES"] == (asked or chosen)
