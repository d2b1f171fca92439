"""The package's face: what it exports is there, and importing it loads nothing heavy."""

import subprocess
import sys

import transformer


def test_every_exported_name_can_be_had() -> None:
    for name in transformer.__all__:
        assert getattr(transformer, name) is not None


def test_a_module_can_be_had_from_the_package_alone() -> None:
    code = "import transformer; assert transformer.config.base('smoke').model.d_model == 32"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert not hasattr(transformer, "no_such_module")


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, transformer; assert not {'jax', 'numpy', 'flax'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_translating_loads_no_more_than_it_needs() -> None:
    """No optimizer, no scores, no curves, no other accelerator's kernels, no library of corpora."""
    code = (
        "import sys\n"
        "from transformer.decoding import open_translator\n"
        "from transformer.checkpoints import load_params\n"
        "unneeded = {'optax', 'sacrebleu', 'tensorboardX', 'matplotlib', 'scipy'}\n"
        "unneeded |= {'tensorflow_datasets', 'jax.experimental.pallas'}\n"
        "assert not unneeded & set(sys.modules), unneeded & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
