"""Other libraries to be measured beside ours: each in an environment and a process of its own.

A peer is a program that reads a case as a line of JSON and answers with a line of JSON. It lives as
long as the benchmark and waits for its turn, so that the two run alternately on a quiet machine.
"""

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]


class Missing(Exception):
    """A peer cannot be measured; the text says why."""


def environment(*alternatives: str, alone: str = "") -> Path:
    """The Python of an environment that has one of these requirements (the first that installs).

    It is made once, under .venv/peers, with pip and whatever pip is configured to install from.

    Args:
        alternatives: what pip is given, one after another until it succeeds.
        alone: what is then installed without that which it asks for itself.

    Raises:
        Missing: none of them can be installed.
    """
    wanted = " | ".join(filter(None, [*alternatives, alone]))
    name = hashlib.sha256(wanted.encode()).hexdigest()[:10]
    folder = ROOT / ".venv" / "peers" / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    if stamp.exists():
        return python
    print(f"installing {alternatives[0]} into {folder.relative_to(ROOT)}", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]

    def installs(*requirements: str) -> bool:
        nonlocal said
        done = subprocess.run([*install, *requirements], capture_output=True, text=True)
        said = done.stderr.strip().split("\n")[-1] if done.stderr.strip() else "pip failed"
        return done.returncode == 0

    said = ""
    if not any(installs(*requirements.split()) for requirements in alternatives):
        raise Missing(f"{alternatives[-1]} cannot be installed: {said}")
    if alone and not installs("--no-deps", *alone.split()):
        raise Missing(f"{alone} cannot be installed: {said}")
    stamp.touch()
    return python


class Peer:
    """A peer's process; ends with the context."""

    def __init__(self, python: Path, program: Path):
        ours = ("PYTHONPATH", "GLIBC_TUNABLES")
        alone = {k: v for k, v in os.environ.items() if k not in ours}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([python, program], env=alone, **pipes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises Missing where it has ended, or answers that it cannot."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or '{"error": "it has ended"}')
        except BrokenPipeError:
            answer = {"error": "it has ended"}
        if "error" in answer:
            raise Missing(answer["error"])
        return answer
