"""The package's face: what it exports is there, and importing it loads nothing heavy."""

import subprocess
import sys

import transformer


def test_every_exported_name_can_be_had() -> None:
    for name in transformer.__all__:
        assert getattr(transformer, name) is not None


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, transformer; assert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
