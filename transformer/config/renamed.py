"""Keys that have other names now, and values: config.json files and habits are older than both."""

import copy
from collections.abc import Mapping
from typing import Any

RENAMED: Mapping[str, str] = {
    "divergence.pass_over": "divergence.skip_batches",
    "divergence.at_most": "divergence.max_times",
}
RENAMED_VALUES: Mapping[str, Mapping[Any, Any]] = {"divergence.action": {"go_back": "rollback"}}


def new_name(key: str) -> str | None:
    """What a key is called now; None where it never had another name."""
    return RENAMED.get(key)


def with_new_names(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Translates an experiment's configuration, nested mappings, that an older version wrote."""
    result = copy.deepcopy(dict(tree))
    for old, new in RENAMED.items():
        section, name = _parent(result, old)
        if name in section:
            _parent(result, new)[0].setdefault(new.rpartition(".")[2], section.pop(name))
    for key, values in RENAMED_VALUES.items():
        section, name = _parent(result, key)
        if isinstance(section.get(name), str):
            section[name] = values.get(section[name], section[name])
    return result


def _parent(tree: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The section that a key is in, empty where there is none, and the key's name there."""
    *sections, name = key.split(".")
    inner: Any = tree
    for section in sections:
        inner = inner.get(section) if isinstance(inner, dict) else None
    return (inner if isinstance(inner, dict) else {}), name
