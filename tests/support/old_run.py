"""A run that revision 8835258 trained, unpacked: 40 steps of tests/support/tiny.py, no dropout."""

import tarfile
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).with_name("run_of_8835258.tar.gz")


def unpack(folder: Path) -> Path:
    """Unpacks it into a folder; returns the run's directory."""
    options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4
    with tarfile.open(ARCHIVE) as file:
        file.extractall(folder, **options)
    return folder / "run"
