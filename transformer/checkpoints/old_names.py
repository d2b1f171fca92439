"""Checkpoints from before version 0.2, whose parameters and state had other names.

They are read under the names that they have, and renamed in memory; what a run then saves has the
names of today. To be deleted when no such checkpoint is worth reading any more.
"""

from collections.abc import Mapping
from typing import Any

from flax import struct

from transformer.checkpoints.state import LossBaseline

NEW_NAMES = {
    "attend": "self_attention_residual",
    "cross": "cross_attention_residual",
    "transform": "feed_forward_residual",
    "typical": "loss_baseline",
}
OLD_NAMES = {new: old for old, new in NEW_NAMES.items()}


@struct.dataclass
class Typical:
    """What `LossBaseline` was."""

    loss: Any
    good: Any
    bad: Any


def has_old_names(digests: Mapping[str, str]) -> bool:
    """Whether a checkpoint whose arrays have these digests, by their paths, is an old one."""
    return any("['rest']['typical']" in path for path in digests)


def with_old_names(tree: Any) -> Any:
    """A tree as an old checkpoint has it: nested dicts, tuples, and leaves of any kind."""
    if isinstance(tree, LossBaseline):
        return Typical(tree.loss, tree.good_steps, tree.consecutive_bad)
    return _renamed(tree, OLD_NAMES, with_old_names)


def with_new_names(tree: Any) -> Any:
    """A tree that was read under old names, as today's code has it."""
    if isinstance(tree, Typical):
        return LossBaseline(tree.loss, tree.good, tree.bad)
    return _renamed(tree, NEW_NAMES, with_new_names)


def _renamed(tree: Any, names: Mapping[str, str], rename: Any) -> Any:
    if isinstance(tree, dict):
        return {names.get(key, key): rename(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):  # an optimizer's state
        return type(tree)(*map(rename, tree))
    return type(tree)(map(rename, tree)) if isinstance(tree, tuple | list) else tree
