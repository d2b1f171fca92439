"""What a result may depend on beside its configuration: versions, flags and the machine."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from transformer import __version__
from transformer.upstream import cpu

FLAGS = ("XLA_", "JAX_", "LIBTPU_", "GLIBC_TUNABLES")  # how variables begin that results depend on


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
