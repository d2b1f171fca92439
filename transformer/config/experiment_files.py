"""Experiment files as the command line names them: FILE[:VARIANT], and changes by key."""

import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformer.config.experiment import Config, from_dict
from transformer.config.experiment_code import Overrides, keys_of
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
    """One of the ROWS of a table's file."""

    published: Published | None
    changes: Mapping[str, Any]  # by key, from what the file's variant "" gives

    def change(self, config: Any) -> None:
        """Applies them to a ConfigDict: what the variant of the row's name does."""
        config.update_from_flattened_dict(self.changes)


def load_config(argument: str, overrides: Overrides, kind: type = Config) -> Any:
    """Resolves the configuration of `--config=FILE[:VARIANT] --config.key=value ...`.

    Args:
        argument: FILE[:VARIANT].
        overrides: the other arguments; or values by key, {"model.d_model": 256}.
        kind: of configuration: Config (an experiment), or ComparisonConfig.

    Raises:
        UserError: the file or a key does not exist, or a value cannot work.
    """
    return from_dict(keys_of(argument, overrides), kind)


def load_rows(path: str, overrides: Overrides, scale: str = "") -> dict[str, tuple[Config, Row]]:
    """Loads a table's file: each of its ROWS, with the configuration that it makes.

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
                "transformer.config.experiment_files.Row"
            )
    if named := [part for part in scale.split(",") if part in rows]:
        raise UserError(
            f"--scale={scale}: {named[0]} is a row of {path}; take what scales all rows"
        )
    behind = f",{scale}" if scale else ""
    table = {}
    for name, row in rows.items():
        argument = f"{path}:{name}{behind}"
        keys = keys_of(argument, overrides)
        try:
            table[name] = from_dict(keys), row
        except UserError as error:
            raise UserError(f"--config={argument}: {error}") from error
    return table
