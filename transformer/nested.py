"""Nested mappings by keys joined with dots: `model.d_model`."""

import fnmatch
from collections.abc import Iterable
from typing import Any


def differences(a: dict[str, Any], b: dict[str, Any], path: str = "") -> list[str]:
    """The keys, joined by dots, in which two nested mappings differ."""
    keys = []
    for key in sorted({*a, *b}):
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            keys += differences(x, y, f"{path}{key}.")
        elif x != y:
            keys.append(path + key)
    return keys


def matches(key: str, names: Iterable[str]) -> bool:
    """Whether a key is one of these, or below one; `*` in a name stands for any part."""
    return any(fnmatch.fnmatchcase(key, each) for name in names for each in (name, f"{name}.*"))


def without(tree: dict[str, Any], names: Iterable[str], path: str = "") -> dict[str, Any]:
    """Nested mappings but for the keys that match one of the names."""
    return {
        key: without(value, names, f"{path}{key}.") if isinstance(value, dict) else value
        for key, value in tree.items()
        if not matches(path + key, names)
    }


def value_at(tree: dict[str, Any], key: str) -> Any:
    """What stands in nested mappings at keys joined by dots; None where nothing does."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None  # pyright: ignore
    return tree


def merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A tree with the values of another in place of its own, or beside them."""
    result = dict(tree)
    for key, value in changes.items():
        section = isinstance(value, dict) and isinstance(tree.get(key), dict)
        result[key] = merged(tree[key], value) if section else value
    return result
