"""The package as a wheel: nothing in it needs the repository."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, run

CONFIG = """
import transformer


def get_config(variant=""):
    config = transformer.config.base(variant)
    config.model.d_model = 16
    return config
"""


@pytest.mark.slow
def test_a_wheel_trains_and_translates_from_any_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={tmp_path}", ROOT], check=True)
    (wheel,) = tmp_path.glob("transformer-*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", f"--target={site}", wheel], check=True)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "mine.py").write_text(CONFIG, encoding="utf-8")
    program = ("env", f"PYTHONPATH={site}", sys.executable, "-m", "transformer")
    options = {"cache": tmp_path, "program": program}
    where = subprocess.run(
        [*program[:3], "-c", "import transformer; print(transformer.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert where.stdout.startswith(str(site))
    config = f"--config={folder}/mine.py:smoke"
    steps = ("--config.training.steps=4", "--config.training.eval_every=0")
    code, _, errors = run("train", config, *steps, f"--workdir={folder}/run", **options)
    assert code == 0, errors
    text = folder / "text"
    text.write_text("la casa roja\n", encoding="utf-8")
    with text.open() as stdin:
        code, output, errors = run("translate", f"--workdir={folder}/run", stdin=stdin, **options)
    assert code == 0 and output.count("\n") == 1, errors
