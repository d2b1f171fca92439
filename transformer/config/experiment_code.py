"""Runs an experiment file, FILE[:VARIANT], for the keys that it sets."""

import importlib.machinery
import importlib.util
import itertools
import logging
import os
import re
import stat
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer.config.overrides import override, override_values
from transformer.errors import UserError

log = logging.getLogger(__name__)

BASE = Path("experiments", "base.py")
Overrides = Sequence[str] | Mapping[str, Any]


def keys_of(argument: str, overrides: Overrides) -> dict[str, Any]:
    """The keys that a file and changes by key set, as nested dicts, not checked yet.

    Args:
        argument: FILE[:VARIANT].
        overrides: "--config.key=value" each, or values by key.

    Raises:
        UserError: the file cannot be run, or has no such key; it names the argument.
    """
    from ml_collections import ConfigDict

    name, *variant = argument.split(":", 1)
    path = Path(name)
    if not path.is_file():
        raise UserError(f"--config={argument}: there is no file {path}")
    root = repository_root(path)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        config = _module(path).get_config(*variant)
    except (Exception, SystemExit) as error:  # whatever the file's own code raises
        raise UserError(f"--config={argument}: {_said(error, path)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={argument}: its get_config() must return a ConfigDict")
    if isinstance(overrides, Mapping):
        override_values(config, overrides)
    else:
        override(config, overrides)
    return config.to_dict()


def _module(path: Path) -> Any:
    """An experiment file, run."""
    name = "transformer_experiment"
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path.absolute(), loader=loader)
    assert spec, "there is none without a loader"
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _said(error: BaseException, path: Path) -> str:
    """What went wrong in an experiment file, and in which of its lines, as one line."""
    text = str(error.args[0] if error.args else error).strip()
    if isinstance(error, SyntaxError):
        elsewhere = "" if error.filename == str(path) else f"{error.filename}, "
        return f"{elsewhere}line {error.lineno}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame.lineno for frame in frames if Path(frame.filename) == path]
    where = f"line {ours[-1]}: " if ours else ""
    if near := re.search(r'Did you mean "(.+?)" instead of "(.+?)"', text):
        return f"{where}unknown key {near[2]!r}: did you mean {near[1]!r}?"
    key = re.search(r'Key "(.*?)" does not exist', text)
    if not key and isinstance(error, AttributeError | KeyError) and _of_a_section(frames):
        key = re.fullmatch(r"[\"'\\]*(\w+)[\"'\\]*", text)
    if key:
        return (
            f"{where}unknown key {key[1]!r}: transformer/config declares them all (a section that "
            "takes other keys is replaced as a whole, config.SECTION = ConfigDict({...}))"
        )
    if kind := re.search(r"override field '(\w+)'.*?\. (.*) is of .*casted to type (.*)$", text):
        must = re.sub(r"^class '(.*\.)?|'$", "", kind[3].strip("<>"))
        return f"{where}{kind[1]} is {kind[2]!r}; it must be of type {must}"
    name = "" if type(error) in (ValueError, UserError) else type(error).__name__
    message = ": ".join(filter(None, (name, " ".join(str(error).split()))))
    return where + (message or type(error).__name__)


def _of_a_section(frames: traceback.StackSummary) -> bool:
    """Whether a ConfigDict raised it, and not the experiment file's own code."""
    return bool(frames) and "ml_collections" in frames[-1].filename


def repository_root(path: Path) -> Path:
    """The folder from which an experiment file's `from experiments import base` works.

    What is found there runs as code, so it is never just any folder above the file: it is the one
    whose `experiments` the file lies in; else the file's own repository; else the checkout of this
    package; else the file's own folder. The first two count only where others cannot write them.
    Links are followed, as Python does for a script.
    """
    path = path.resolve()
    folder = path.parent
    marked = (
        above
        for above in (folder, *folder.parents)
        if any((above / mark).exists() for mark in (".git", "setup.cfg", "pyproject.toml"))
    )
    beside = [folder.parent] if folder.name == "experiments" else []
    for candidate in (*beside, *itertools.islice(marked, 1)):
        if (candidate / BASE).is_file():
            part = _open_to_others(candidate, path)
            if part is None:
                return candidate
            log.warning(
                "%s is passed over: others can write %s, and what lies there would run; to use it, "
                "make it yours alone",
                *(candidate / BASE, part),
            )
    checkout = Path(__file__).parents[2]
    return checkout if (checkout / BASE).is_file() else folder


def _open_to_others(root: Path, path: Path) -> Path | None:
    """What of a repository somebody can write whom running `path` does not trust anyway.

    Trusted are oneself, root, and who owns the file or its folder.
    """
    trusted = {0, os.getuid(), path.stat().st_uid, path.parent.stat().st_uid}
    for part in (root, root / BASE.parent, root / BASE):
        status = part.stat()
        if status.st_uid not in trusted or status.st_mode & stat.S_IWOTH:
            return part
    return None
