"""Keys that came later, each with what runs had before it was there.

The config.json of a run from before lacks them. A new key gets a row here, or such runs cannot be
opened any more, and a run's default name, a hash of its configuration, is another.
"""

import copy
from collections.abc import Mapping
from typing import Any

BEFORE: Mapping[str, Any] = {
    "distributed.timeout": 300.0,
    "evaluation.bleu_tokenizer": "auto",
}


def with_new_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment's configuration, nested mappings, with the keys that it lacks for its age."""
    filled = copy.deepcopy(dict(tree))
    for key, value in BEFORE.items():
        *sections, name = key.split(".")
        inner = filled
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):  # which whoever reads the tree will say
                break
        else:
            inner.setdefault(name, value)
    return filled


def without_new_keys(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """An experiment's configuration without the keys that it could lack for its age."""
    left = {}
    for name, value in tree.items():
        key = path + name
        if key in BEFORE and BEFORE[key] == value:
            continue
        if isinstance(value, Mapping) and any(new.startswith(f"{key}.") for new in BEFORE):
            value = without_new_keys(value, f"{key}.")
            if not value:  # a section of new keys alone
                continue
        left[name] = value
    return left


def is_new(key: str, value: Any) -> bool:
    """Whether a key with this value, or all below it, could be lacking in a file for its age."""
    if isinstance(value, Mapping) and value:
        return all(is_new(f"{key}.{name}", inner) for name, inner in value.items())
    return any(
        (key == new or key.endswith(f".{new}")) and value == before
        for new, before in BEFORE.items()
    )
