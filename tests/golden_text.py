"""Golden text: what must stay as it is unless it is changed on purpose."""

import os
from pathlib import Path


def compare(path: Path, found: str, test: str) -> None:
    """Asserts that a text is the one kept, or keeps it where UPDATE_GOLDEN is set.

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
    assert found == kept, f"{path.stem} is not what it was; on purpose? {renew}"
