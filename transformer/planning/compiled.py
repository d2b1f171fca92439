"""What a compiled training step costs a chip, beside the least that its sharding needs."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.batch import Batch, Source, Target
from transformer.config import Config
from transformer.errors import UserError
from transformer.models import build_model, parameters
from transformer.models.precision import compute_dtype
from transformer.planning.hlo import Module
from transformer.sharding import Layout
from transformer.training.program import build_program

FLOAT32 = 4  # bytes


def lowered_step(config: Config, layout: Layout, batch: Batch) -> Any:
    """Lowers an experiment's training step: the one that `transformer train` runs."""
    program = build_program(config, build_model(config.model), layout)
    return program.step.lower(program.factory.abstract, batch)


def abstract_batch(layout: Layout, rows: int, length: int) -> Batch:
    """What `Layout.place` gives, as shapes: source and target of `length`."""

    def of(dtype: Any) -> Any:
        sharding = layout.sharding(("batch", "length"), (rows, length), "a batch")
        return jax.ShapeDtypeStruct((rows, length), dtype, sharding=sharding)

    ids = of(jnp.int32)
    return Batch(Source(ids, ids, ids), Target(ids, ids, ids, ids, of(jnp.float32)))


@dataclass(frozen=True)
class Cost:
    """What one chip computes and sends in one step.

    Attributes:
        flops: of matrix products, 2 a multiply-add; kernels in Pallas are not among them.
        sent: the mesh axes along which it sends → bytes; "data x fsdp" is over both at once.
    """

    flops: float
    sent: dict[str, float]

    @classmethod
    def of(cls, text: str, mesh: Mapping[str, int]) -> "Cost":
        """Reads the cost off an optimised program's text.

        Args:
            mesh: axis → size, as its devices are numbered.
        """
        module = Module(text)
        sent: dict[str, float] = defaultdict(float)
        for collective in module.collectives:
            sent[" x ".join(collective.axes(mesh))] += collective.sent
        return cls(module.flops, {axes: bytes for axes, bytes in sent.items() if axes})


def peak_bytes(memory: Mapping[str, int]) -> int:
    """A chip's peak: arguments, temporaries, and outputs that reuse no argument."""
    return memory["argument"] + memory["temp"] + memory["output"] - memory["alias"]


def least(config: Config, layout: Layout, rows: int, length: int) -> dict[str, float]:
    """The bytes that each chip must send in a training step, however it is compiled.

    In rings, as `hlo.Collective.sent` counts them. Of a parameter let the mesh axes that split the
    batch, f devices, split it too (fsdp), and d devices hold copies (data); n of its elements are
    a chip's once they are gathered over f (tensor has split it before).

        all-gather over f        k (f - 1) / f · n · w
        reduce-scatter over f      (f - 1) / f · n · w      of the gradient
        all-reduce over d        2 (d - 1) / d · n / f · w  of what is left of it

    k is 2 in the loops over layers, forward and, since nothing keeps it, backward (Rajbhandari et
    al. 2020, §7.2), and 1 elsewhere: the embedding is kept. w is the bytes of the dtype of
    computation, but 4 for norms, which float32 computes.

    Over t devices (tensor), the rows · length / (d f) positions' vectors of D that a chip computes
    are summed after each product with a split sum (Shoeybi et al. 2020, §3): a times

        all-reduce over t        2 (t - 1) / t · rows · length / (d f) · D · w

    where a = 2 in a sub-layer (forward and backward), of which an encoder's layer has two and a
    decoder's three (one, if they are parallel), and 4 in all: two embeddings, the gradients of the
    memory and of the last hidden states. The softmax's own sums, and scalars, are left out.

    Args:
        rows, length: of the whole batch, source and target alike.

    Returns:
        Mesh axes, as in `Cost.sent` → bytes.

    Raises:
        UserError: the mesh splits positions, or splits another family's tensors.
    """
    c, mesh = config.model, layout.mesh.shape
    if layout.split("length") > 1 or (layout.split("mlp") > 1 and c.family != "transformer"):
        raise UserError(
            "the least that a mesh must send is derived for data and fsdp, and for tensor of "
            f"model.family=transformer, not for this mesh of a {c.family}: {dict(mesh)}"
        )
    with layout:
        w = compute_dtype(c).itemsize
        boxes = jax.eval_shape(lambda: parameters.boxed(build_model(c), layout, 0))
    sent: dict[str, float] = defaultdict(float)
    batch = layout.mesh_axes("batch")
    leaves = jax.tree_util.tree_leaves_with_path(
        boxes, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    )
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path)
        axes = [axis for logical in leaf.names for axis in layout.mesh_axes(logical)]
        splits = [axis for axis in batch if axis in axes]
        copies = [axis for axis in batch if axis not in axes]
        f, d = (math.prod(mesh[axis] for axis in some) for some in (splits, copies))
        n = math.prod(leaf.value.shape) * f // math.prod(mesh[axis] for axis in axes)
        bytes = n * (FLOAT32 if "norm" in name else w)
        times = 2 if "layers" in leaf.names else 1
        sent[" x ".join(splits)] += (times + 1) * (f - 1) / f * bytes
        sent[" x ".join(copies)] += 2 * (d - 1) / d * bytes / f
    t = layout.split("mlp")
    encoder, decoder = (1, 1) if c.sublayers == "parallel" else (2, 3)
    vectors = 2 * (encoder * c.encoder_layers + decoder * c.decoder_layers) + 4
    positions = rows * length // layout.split("batch")
    sent[" x ".join(layout.mesh_axes("mlp"))] += (
        2 * (t - 1) / t * positions * c.d_model * w * vectors
    )
    return {axes: bytes for axes, bytes in sent.items() if axes}
