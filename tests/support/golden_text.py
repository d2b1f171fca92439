"""Golden text: what must stay as it is unless it is changed on purpose."""

import os
from pathlib import Path

import jax
import pytest

OF_JAX = f"# of jax {jax.__version__}\n"  # the first line of what another JAX writes otherwise


def compare(path: Path, found: str, test: str) -> None:
    """Asserts that a text is the one kept, or keeps it where UPDATE_GOLDEN is set.

    A text that begins with `OF_JAX` is one JAX's: with another, the test is skipped.

    Args:
        path: of the kept text.
        found: the text.
        test: the file that renews it.
    """
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
    renew = f"UPDATE_GOLDEN=1 tests/run {test}, read the diff, and say in the commit why"
    assert path.exists(), f"no golden text of {path.stem}: {renew}"
    kept = path.read_text(encoding="utf-8")
    if found.startswith(OF_JAX) and not kept.startswith(OF_JAX):
        whose = kept.splitlines()[0].removeprefix("# of ")
        pytest.skip(f"the golden text is of {whose}; this is jax {jax.__version__}")
    assert found == kept, f"{path.stem} is not what it was; on purpose? {renew}"
