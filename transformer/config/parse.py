"""Makes the dataclasses of nested mappings; the dataclasses say what there may be."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from transformer.config.fields import Section
from transformer.config.renamed import new_name
from transformer.errors import UserError


def build(kind: type[Section], tree: Any, path: str = "") -> Any:
    """The section of a kind that nested mappings describe; a key that is not there has its default.

    Args:
        kind: of section.
        tree: the mappings (a ConfigDict's `to_dict()`, or parsed JSON).
        path: what stands before its keys, with a dot; "" for a whole configuration.

    Raises:
        UserError: a key is unknown or of another type, or a value cannot work.
    """
    if not isinstance(tree, Mapping):
        raise UserError(f"config.{path.rstrip('.')} is {tree!r}; it must be a section of keys")
    tree = kind.completed(tree)
    kinds = typing.get_type_hints(kind)
    for key in tree:
        if key not in kinds:
            if new := new_name(path + key):
                raise UserError(f"config.{path}{key} is called config.{new} now: rename it")
            near = difflib.get_close_matches(key, kinds, n=1, cutoff=0)
            raise UserError(f"unknown key config.{path}{key}: did you mean config.{path}{near[0]}?")
    for field in dataclasses.fields(kind):  # pyright: ignore[reportArgumentType]
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in tree:
            raise UserError(f"config.{path}{field.name} is missing: it has no default")
    return kind(**{k: _convert(kinds[k], tree[k], path + k) for k in kinds if k in tree})


def _convert(kind: Any, value: Any, path: str) -> Any:
    if isinstance(kind, type) and issubclass(kind, Section):
        try:
            return build(kind, value, path + ".")
        except UserError as error:
            if not kind.is_experiment or path in str(error):
                raise
            raise UserError(f"config.{path}: {error}") from error  # which experiment's it is
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"config.{path} is {value!r}; it must be a list")
        inner = typing.get_args(kind)
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) != len(value):
            raise UserError(f"config.{path} has an item {value!r} of a wrong length")
        return tuple(_convert(k, v, path) for k, v in zip(kinds, value, strict=True))
    if origin is types.UnionType:  # a section that may be missing
        return None if value is None else _convert(typing.get_args(kind)[0], value, path)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise UserError(f"config.{path} is {value!r}; it must be a section of keys")
        inner = typing.get_args(kind)[1]
        if inner is Any:
            return dict(value)
        for name in value:
            if not (isinstance(name, str) and name.isidentifier()):
                raise UserError(f"config.{path} has a key {name!r}: take a name of letters")
        return {k: _convert(inner, value[k], f"{path}.{k}") for k in sorted(value)}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise UserError(
            f"config.{path} is {value!r}, a {type(value).__name__}; it must be {kind.__name__}"
        )
    if isinstance(value, str) and "\0" in value:  # which no path can have, and no name needs
        raise UserError(f"config.{path} is {value!r}: take the NUL character out")
    return value
