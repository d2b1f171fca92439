"""What a command's process is set to."""

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource
from transformer import runtime
{keep}
import jax, jax.numpy as jnp
step = jax.jit(lambda x: (x @ x.T) @ x)  # holds 64 MiB
x = jnp.ones((4_096, 8))
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux's C library")
def test_a_program_that_runs_again_asks_the_kernel_for_no_memory() -> None:
    def pages(keep: str) -> int:
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-c", FAULTS.format(keep=keep)]
        return int(subprocess.run(command, env=environment, check=True, stdout=-1).stdout)

    assert pages("") > 2_000
    assert pages("runtime.keep_memory()") < 200


def test_with_accelerators_the_host_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformer import runtime

    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    assert not runtime._cpus_alone()
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: name == "libtpu")
    assert not runtime._cpus_alone()
