"""Where things are computed: a mesh of devices, and rules from logical axes to mesh axes.

Models name what an axis is (`embed`, `heads`, `batch` ...); the experiment's rules say which mesh
axes it is split over. A `Layout` holds both. Inside `layout.jit(function)`, or `with layout:`,
models state the sharding of activations with `constrain`. One device is a mesh of one, not a
special path.

    mesh axis   what is split over it
    data        rows of a batch: data parallelism
    fsdp        rows and parameters: fully sharded data parallelism
    tensor      heads, feed-forward, vocabulary: tensor parallelism
    sequence    positions: sequence parallelism (context parallelism)

Linen's own constraints pass over a misspelt axis, a size that does not divide, an axis used twice
and a missing mesh in silence, leaving everything replicated. Here each of these is an error.
"""

import contextvars
import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from transformer.errors import UserError

Axes = Sequence[str | None]
Rules = Sequence[tuple[str, Sequence[str]]]

_IN_FORCE: contextvars.ContextVar[tuple["Layout", ...]] = contextvars.ContextVar(
    "layouts", default=()
)


class Layout:
    """A mesh and the rules that map logical axes onto it.

    Args:
        axes: mesh axis → number of devices; one of them may be -1 for all that are left.
        rules: (logical axis, mesh axes it is split over) pairs; () leaves it whole.
        devices: which devices; all of the run's where it is None.

    Raises:
        UserError: the mesh does not fit the devices, or a rule names a mesh axis that is not there.
    """

    def __init__(self, axes: Mapping[str, int], rules: Rules, devices: Sequence[Any] | None = None):
        devices = jax.devices() if devices is None else devices
        sizes = mesh_sizes(axes, len(devices))
        self.mesh = _mesh(sizes, list(devices))
        self.rules = {logical: tuple(names) for logical, names in rules}
        for logical, names in self.rules.items():
            for name in names:
                if name not in sizes:
                    raise UserError(
                        f"sharding rule {logical!r} names the mesh axis {name!r}; "
                        f"the mesh has {', '.join(sizes)}"
                    )

    @classmethod
    def single(cls, rules: Rules = ()) -> Self:
        """One device and every logical axis whole: what a unit test or a notebook needs."""
        return cls({"data": 1}, rules or [(name, ()) for name in LOGICAL_AXES], jax.devices()[:1])

    def __enter__(self) -> Self:
        _IN_FORCE.set((*_IN_FORCE.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        _IN_FORCE.set(_IN_FORCE.get()[:-1])

    def split(self, logical: str | None) -> int:
        """Over how many devices a logical axis is split."""
        return math.prod(self.mesh.shape[name] for name in self.mesh_axes(logical))

    def mesh_axes(self, logical: str | None) -> tuple[str, ...]:
        """The mesh axes that a logical axis is split over; those of one device left out."""
        if logical is None:
            return ()
        if logical not in self.rules:
            raise UserError(
                f"logical axis {logical!r} has no sharding rule; "
                f"config.sharding.rules has {', '.join(self.rules)}"
            )
        return tuple(name for name in self.rules[logical] if self.mesh.shape[name] > 1)

    def whole(self, logical: str) -> "Layout":
        """This layout with a logical axis that is not split: decoding, whose target grows."""
        layout = copy.copy(self)
        layout.rules = {**self.rules, logical: ()}
        return layout

    def spec(self, axes: Axes, shape: Sequence[int] | None = None, what: str = "an array"):
        """The PartitionSpec of logical axes, checked against `shape` where it is given.

        Raises:
            UserError: an axis without a rule, a mesh axis used twice, a size that does not divide.
        """
        if shape is not None and len(shape) != len(axes):
            raise UserError(f"{what}: {len(axes)} logical axes {tuple(axes)} for shape {shape}")
        used: set[str] = set()
        entries: list[tuple[str, ...] | None] = []
        for index, logical in enumerate(axes):
            names = self.mesh_axes(logical)
            twice = used.intersection(names)
            if twice:
                raise UserError(
                    f"{what}: two of its axes {tuple(axes)} are split over {twice.pop()!r}"
                )
            used.update(names)
            if shape is not None and shape[index] % self.split(logical):
                raise UserError(
                    f"{what}: axis {logical!r} has size {shape[index]}, which the mesh axes "
                    f"{' x '.join(names)} = {self.split(logical)} do not divide: make one a "
                    "multiple of the other"
                )
            entries.append(names or None)
        return PartitionSpec(*entries)

    def sharding(self, axes: Axes, shape: Sequence[int] | None = None, what: str = "an array"):
        """`spec` on this layout's mesh."""
        return NamedSharding(self.mesh, self.spec(axes, shape, what))

    def shardings(self, boxed: Any) -> Any:
        """Shardings for a tree of parameters as the model made it, with axis names."""

        def one(path: Any, leaf: Any) -> NamedSharding:
            what = "parameter " + jax.tree_util.keystr(path, simple=True, separator="/")
            if isinstance(leaf, nn.LogicallyPartitioned):
                return self.sharding(leaf.names, leaf.value.shape, what)
            raise UserError(f"{what} names no logical axes: create it with `parameter`")

        return jax.tree_util.tree_map_with_path(
            one, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
        )

    @property
    def platform(self) -> str:
        """cpu, gpu or tpu: of the mesh, which need not be where it is compiled."""
        return self.mesh.devices.flat[0].platform

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    def jit(self, function: Callable, **options: Any) -> Callable:
        """`jax.jit`, traced with this layout in force.

        Rules are no part of jit's cache key, so each call makes a function of its own to compile:
        one jit per layout, kept by the caller.
        """

        def traced(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        traced.__name__ = getattr(function, "__name__", "function")
        return jax.jit(traced, **options)

    def local_rows(self, rows: int) -> tuple[int, int]:
        """The range of a batch's rows that this process's devices hold: [start, stop)."""
        sharding = self.sharding(("batch",), (rows,), "a batch")
        indices: Any = sharding.addressable_devices_indices_map((rows,)).values()
        spans = [index[0].indices(rows) for index in indices]
        return min(start for start, _, _ in spans), max(stop for _, stop, _ in spans)

    def place(self, tree: Any, rows: int | None = None) -> Any:
        """A batch onto the devices, split by the rules of `batch` and `length`.

        Args:
            tree: of NumPy arrays [B, T]; only the rows `local_rows(rows)` where `rows` is given.
            rows: B of the whole batch, if this process has read no more than its own.
        """
        first = 0 if rows is None else self.local_rows(rows)[0]

        def one(array: np.ndarray) -> Array:
            shape = (len(array) if rows is None else rows, *array.shape[1:])
            axes = ("batch", "length", *[None] * array.ndim)[: array.ndim]

            def load(index: Any) -> np.ndarray:
                start, stop, _ = index[0].indices(shape[0])
                return array[(slice(start - first, stop - first), *index[1:])]

            sharding = self.sharding(axes, shape, "a batch")
            return jax.make_array_from_callback(shape, sharding, load)

        return jax.tree.map(one, tree)


def current() -> Layout:
    """The layout in force; where there is one device alone, that device.

    Raises:
        UserError: none is in force, and there are several devices.
    """
    if layouts := _IN_FORCE.get():
        return layouts[-1]
    if jax.device_count() == 1:
        return _only_device()
    raise UserError(
        f"no mesh, and {jax.device_count()} devices: call the model inside `with Layout.single():` "
        "or a `layout.jit` function"
    )


@functools.cache
def _only_device() -> Layout:
    return Layout.single()


def constrain(x: Array, *axes: str | None) -> Array:
    """States how an activation is split, by logical axis names; refuses what cannot be."""
    layout = current()
    sharding = layout.sharding(axes, x.shape, "an activation")
    return x if layout.mesh.size == 1 else jax.lax.with_sharding_constraint(x, sharding)


def parameter(
    module: nn.Module, name: str, init: Callable, axes: Axes, shape: Sequence[int]
) -> Any:
    """Creates (or reads) a float32 parameter; its logical axes go with it until it is unboxed.

    NumPy's arrays, as whoever calls a model outside of `jit` may give, are made JAX's.
    """
    boxed = nn.with_logical_partitioning(init, tuple(axes))
    value = module.param(name, boxed, tuple(shape))
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, value)


# What a model's axes may be called; base.py gives each a rule.
LOGICAL_AXES = [
    "batch",
    "length",
    "embed",
    "hidden",
    "heads",
    "kv_heads",
    "head_size",
    "mlp",
    "gates",
    "state",
    "vocab",
    "layers",
]


def _mesh(sizes: dict[str, int], devices: list[Any]) -> Mesh:
    """Devices along the mesh's axes, neighbours next to each other where the hardware has them.

    JAX gives each axis whole rings of a TPU's torus, and refuses what no rings make up (4 of rings
    of 8): that axis is then a part of a ring.
    """
    shape, types = tuple(sizes.values()), (AxisType.Auto,) * len(sizes)
    try:
        return jax.make_mesh(shape, tuple(sizes), axis_types=types, devices=devices)
    except NotImplementedError:
        parted = create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(parted, tuple(sizes), axis_types=types)


def mesh_sizes(axes: Mapping[str, int], devices: int) -> dict[str, int]:
    """Mesh axis sizes with -1 filled in.

    Raises:
        UserError: they do not make up the devices.
    """
    text = " x ".join(f"{name} {size}" for name, size in axes.items())
    free = [name for name, size in axes.items() if size == -1]
    fixed = math.prod(size for size in axes.values() if size != -1)
    if len(free) > 1:
        raise UserError(f"mesh {text}: only one axis may be -1")
    if devices % fixed or (not free and fixed != devices):
        fits = [size for size in range(1, devices + 1) if devices % size == 0]
        raise UserError(
            f"mesh {text} asks for {fixed} devices{' (or a multiple)' if free else ''}, but there "
            f"are {devices}: sizes whose product is {devices} fit (each one of {fits}); "
            "-1 stands for all that are left"
        )
    return {name: devices // fixed if size == -1 else size for name, size in axes.items()}
