"""A model's parameters as a tree: making them on a mesh, and counting them without making them."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array

from transformer import rng
from transformer.batch import Batch, Source, Target
from transformer.models.seq2seq import Seq2Seq
from transformer.rng import Stream
from transformer.sharding import Layout

Params = Any  # nested dicts of float32 arrays


def boxed(model: Seq2Seq, layout: Layout, seed: int | Array) -> Params:
    """Initial parameters with their logical axes still attached; call it under `layout`."""
    ids = jnp.ones((layout.split("batch"), layout.split("length")), jnp.int32)
    batch = Batch(Source(ids, ids, ids), Target(ids, ids, ids, ids, ids.astype(jnp.float32)))
    return model.init(rng.key(seed, Stream.INIT), batch)["params"]


def create(model: Seq2Seq, layout: Layout, seed: int) -> Params:
    """Initial parameters, placed by the layout's rules: the same bits on every mesh."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract(model, layout))
    make = layout.jit(lambda seed: nn.unbox(boxed(model, layout, seed)), out_shardings=shardings)
    return make(np.int32(seed))


def abstract(model: Seq2Seq, layout: Layout) -> Params:
    """Shapes, dtypes and shardings of the parameters (ShapeDtypeStructs); computes nothing."""
    with layout:
        boxes = jax.eval_shape(lambda: boxed(model, layout, 0))
    shardings = layout.shardings(boxes)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxes), shardings
    )


@dataclass(frozen=True)
class Count:
    """How many parameters a model has, and how much one token costs.

    Attributes:
        groups: number of parameters by the tree's first two names.
        total: of all groups.
        layers: `total` without the embedding and what it learns of positions.
        forward_flops: of one source and one target token, 2 for a multiply-add, in sentences of
            `length` tokens; a training step takes 3 times as many.
    """

    groups: dict[str, int]
    total: int
    layers: int
    forward_flops: float
    length: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "layers": self.layers,
            "groups": self.groups,
            "flops_per_token": {
                "forward": self.forward_flops,
                "training": 3.0 * self.forward_flops,
                "length": self.length,
            },
        }

    def table(self) -> str:
        """Formats the counts for people: a row a group, the totals, the cost of a token."""
        rows = [*self.groups.items(), ("layers", self.layers), ("total", self.total)]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {number:>15,}" for name, number in rows]
        lines.insert(-2, "-" * (width + 17))
        for name, times in (("forward", 1.0), ("training", 3.0)):
            flops = times * self.forward_flops
            lines.append(f"{flops:.3e} FLOPs a token, {name}, sentences of {self.length}")
        return "\n".join(lines)


def count(model: Seq2Seq, length: int) -> Count:
    """Counts by shapes alone: nothing is allocated."""
    groups: dict[str, int] = {}
    tree = abstract(model, Layout.single())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        group = "/".join(str(key.key) for key in path[:2])
        groups[group] = groups.get(group, 0) + math.prod(leaf.shape)
    total = sum(groups.values())
    before = ("embedding", "positions")
    embedding = sum(n for group, n in groups.items() if group.startswith(before))
    flops = type(model).flops_per_token(model.config, length)
    return Count(groups, total, total - embedding, flops, length)
