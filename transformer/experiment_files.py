"""Experiment files as the command line names them: FILE[:VARIANT], and changes by key."""

import os
import re
import runpy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformer.config import Config, from_dict, override
from transformer.errors import UserError


@dataclass(frozen=True)
class Published:
    """What a paper prints in a row of a table; None where it prints nothing."""

    perplexity: float  # a word-piece
    bleu: float
    millions: int | None = None  # parameters
    training_flops: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """Of a table's file, one of its ROWS."""

    published: Published | None
    changes: Mapping[str, Any]  # by key, from what the file's variant "" gives

    def change(self, config: Any) -> None:
        """Applies them to a ConfigDict: what the variant of the row's name does."""
        config.update_from_flattened_dict(self.changes)


def load_config(argument: str, overrides: Sequence[str], kind: type = Config) -> Any:
    """The resolved configuration of `--config=FILE[:VARIANT] --config.key=value ...`.

    Args:
        argument: FILE[:VARIANT].
        overrides: the other arguments.
        kind: of configuration: Config (an experiment), or ComparisonConfig.

    Raises:
        UserError: the file or a key does not exist, or a value cannot work.
    """
    return from_dict(_keys(argument, overrides), kind)


def _keys(argument: str, overrides: Sequence[str]) -> dict[str, Any]:
    """As nested dicts, not looked at yet. Raises UserError, which names the argument."""
    from absl import flags
    from ml_collections import ConfigDict, config_flags

    path = Path(argument.split(":")[0])
    if not path.is_file():
        raise UserError(f"--config={argument}: there is no file {path}")
    root = _repository_root(path)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    values = flags.FlagValues()
    command = ["transformer", f"--config={argument}"]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    try:
        values(command)
    except Exception as error:  # whatever the file's own code raises, too
        raise UserError(f"--config={argument}: {_last_line(error)}") from error
    config = values["config"].value
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={argument}: its get_config() must return a ConfigDict")
    override(config, overrides)
    return config.to_dict()


def load_rows(
    path: str, overrides: Sequence[str], scale: str = ""
) -> dict[str, tuple[Config, Row]]:
    """Of a table's file, each of its ROWS, with the configuration that it makes.

    Args:
        path: FILE; whose rows are its variants.
        overrides: as of `load_config`.
        scale: a variant more, behind each row.

    Raises:
        UserError: see `load_config`; a file without ROWS has none.
    """
    load_config(path, ())  # which says what is wrong with the file, and finds its folder
    rows = runpy.run_path(path).get("ROWS", {})
    if not isinstance(rows, Mapping):
        raise UserError(f"{path}: ROWS is a {type(rows).__name__}; it must be a dict of Row")
    for name, row in rows.items():
        if not isinstance(row, Row):
            raise UserError(
                f"{path}: ROWS[{name!r}] is a {type(row).__name__}; it must be a "
                "transformer.experiment_files.Row"
            )
    if named := [part for part in scale.split(",") if part in rows]:
        raise UserError(
            f"--scale={scale}: {named[0]} is a row of {path}; take what scales all rows"
        )
    behind = f",{scale}" if scale else ""
    table = {}
    for name, row in rows.items():
        argument = f"{path}:{name}{behind}"
        keys = _keys(argument, overrides)
        try:
            table[name] = from_dict(keys), row
        except UserError as error:
            raise UserError(f"--config={argument}: {error}") from error
    return table


def _last_line(error: Exception) -> str:
    """What went wrong, without the traceback that absl and ml_collections put before it."""
    text = str(error.args[0] if error.args else error).strip() or type(error).__name__
    if near := re.search(r'Did you mean "(.+?)" instead of "(.+?)"', text):
        return f"unknown key {near[2]!r}: did you mean {near[1]!r}?"
    if name := re.fullmatch(r"[\"'\\]*(\w+)[\"'\\]*", text):
        return f"unknown key {name[1]!r}: experiments/base.py has them all"
    if kind := re.search(r"override field '(\w+)'.*?\. (.*) is of .*casted to type (.*)$", text):
        return f"{kind[1]} is {kind[2]!r}; it must be of {kind[3].strip('<>')}"
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {text}"
    return text.split("\n")[-1]


def _repository_root(path: Path) -> Path:
    """The folder from which an experiment file's `from experiments import base` works.

    What is found there runs as code, so it is never just any folder above the file: it is the one
    whose `experiments` the file lies in; else the file's own repository, if it is the file's
    owner's or one's own; else the checkout of this package; else the file's own folder.
    """
    folder = path.absolute().parent
    repository = next(
        (above for above in (folder, *folder.parents) if _is_repository(above, path)), folder
    )
    beside = [folder.parent] if folder.name == "experiments" else []
    for candidate in (*beside, repository, Path(__file__).parent.parent):
        if (candidate / "experiments" / "base.py").is_file():
            return candidate
    return folder


def _is_repository(folder: Path, path: Path) -> bool:
    if not any((folder / mark).exists() for mark in (".git", "setup.cfg", "pyproject.toml")):
        return False
    return folder.stat().st_uid in {path.stat().st_uid, os.getuid()}
