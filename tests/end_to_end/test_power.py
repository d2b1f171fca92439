"""What a power cut or a full disk leaves: by system calls, and on a disk that is full."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import TINY, error_line, metrics, run

pytestmark = pytest.mark.slow
SHORT = ("--config.training.eval_every=0", "--config.checkpoints.every=20")


def test_all_is_synced_before_the_name_that_makes_it_count(tmp_path: Path) -> None:
    """By strace: every file and folder of a checkpoint is synced after its last write, then the run
    directory, then comes the rename, then the folder of that name is synced."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    workdir, trace = tmp_path / "run", tmp_path / "trace"
    calls = "fsync,fdatasync,rename,renameat,renameat2,write,pwrite64,writev,pwritev"
    program = ("strace", "-f", "-y", "-qq", "-e", f"trace={calls}", "-o", str(trace))
    command = ("train", TINY, f"--workdir={workdir}", "--config.training.steps=20", *SHORT)
    code, _, errors = run(
        *command, cache=tmp_path, program=(*program, sys.executable, "-m", "transformer")
    )
    assert code == 0, errors
    lines = trace.read_text(errors="replace").splitlines()
    final, temporary = workdir / "checkpoints/20", workdir / "checkpoints/20.orbax-checkpoint-tmp"
    (named,) = (i for i, line in enumerate(lines) if f'rename("{temporary}", "{final}")' in line)

    def last(kind: str, path: Path) -> int:
        found = [i for i, line in enumerate(lines) if re.search(rf"\b{kind}\(\d+<{path}>", line)]
        return found[-1] if found else -1

    for path in [final, *final.rglob("*")]:
        before = temporary / path.relative_to(final)
        synced = last("f(?:data)?sync", before)
        assert last(r"p?writev?(?:64)?", before) < synced < named, before
        assert synced >= 0
    assert 0 <= last("fsync", workdir) < named < last("fsync", workdir / "checkpoints")


def test_a_full_disk_stops_with_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """A real file system of a few MiB; when it grew, the same command goes on."""
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("no file systems can be mounted here")
    disk, kept, cache = tmp_path / "disk", tmp_path / "kept", tmp_path / "cache"
    for folder in (disk, kept, cache):
        folder.mkdir()
    train = (
        f"{sys.executable} -m transformer train {TINY} --workdir={disk}/run {' '.join(SHORT)} "
        "--config.training.steps=80 --config.checkpoints.keep_last=4"
    )
    script = f"""
        mount -t tmpfs -o size=1500k tmpfs {disk}
        {train} 2> {kept}/first; echo $?
        ls {disk}/run/checkpoints | grep -v tmp | tr '\\n' ' '; echo
        mount -o remount,size=50m {disk}
        {train} 2> {kept}/second; echo $?
        cp -r {disk}/run {kept}
    """
    ran = run("-rm", "sh", "-c", script, cache=cache, program=("unshare",))
    first, steps, second = ran[1].strip().splitlines()
    errors = (kept / "first").read_text()
    assert first == "1", errors
    assert "no space left" in error_line(errors).lower()
    assert steps.split(), "some checkpoints were written, and are whole"
    again = (kept / "second").read_text()
    assert second == "0", again
    newest = max(map(int, steps.split()))
    assert f"going on from step {newest}" in again
    assert "cannot be used" not in again
    assert [line["step"] for line in metrics(kept / "run")] == list(range(10, 81, 10))
