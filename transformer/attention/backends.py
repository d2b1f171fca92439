"""The ordered table of backends: what each can serve, and why not."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Float

from transformer.attention import cudnn, reference, ring, splash, ulysses, xla
from transformer.attention.chunked import Chunked
from transformer.attention.kernels import Kernel, attend_in_blocks
from transformer.attention.masks import Mask
from transformer.attention.reference import Dropout
from transformer.attention.sharded import Local, Split, indivisible, per_device
from transformer.attention.splash import Splash
from transformer.dotted import is_dotted, resolve
from transformer.errors import UserError

# What "auto" chose in this process, a line a choice, in order; a dict for its order alone.
served: dict[str, None] = {}

SCORES_LIMIT = 2**30  # bytes of scores that "auto" lets `xla` hold on a device


class Unserved(UserError):
    """A backend that was asked for cannot serve a call; `why` is its reason."""

    def __init__(self, name: str, why: str):
        super().__init__(f"attention backend {name!r} cannot serve this call: {why}")
        self.why = why


@dataclass(frozen=True)
class Call:
    """The arguments of `attend`, as a backend is shown them."""

    q: Any  # [B, T, H, K]
    k: Any  # [B, S, G, K]
    v: Any  # [B, S, G, U]
    mask: Mask
    bias: Any
    dropout: Dropout | None
    split: Split | None
    platform: str  # cpu, gpu or tpu: where it will run, which need not be where it is compiled

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.q, self.k, self.v, self.mask, self.bias, self.dropout

    @property
    def shards(self) -> int:
        """Over how many devices the length is split."""
        return self.split.count(self.split.length) if self.split else 1

    @property
    def scores_bytes(self) -> int:
        """What a device would hold if it made all of its scores at once, in float32."""
        B, T, H, _ = self.q.shape
        whole = 4 * B * H * T * self.k.shape[1]
        if self.split is None:
            return whole
        return whole // self.split.count((*self.split.batch, *self.split.length, *self.split.heads))


@dataclass(frozen=True)
class Backend:
    """A row of the table.

    Attributes:
        unsupported: the reason why it cannot serve a call, or None.
        inadvisable: the reason why "auto" passes it over though it could, or None.
    """

    name: str
    compute: Callable[[Call], Float[Array, "B T H U"]]
    unsupported: Callable[[Call], str | None]
    inadvisable: Callable[[Call], str | None] = lambda _: None


def select(name: str, call: Call) -> Backend:
    """The row that serves a call. Only "auto" falls through, and notes why in `served`.

    Raises:
        UserError: no such backend; `Unserved`: the one asked for cannot serve the call.
    """
    if name != "auto":
        row = find_backend(name)
        why = row.unsupported(call)
        if why is not None:
            raise Unserved(name, why)
        return row
    passed_over = []
    for row in BACKENDS:
        why = row.unsupported(call) or row.inadvisable(call)
        if why is None:
            why_not = f"; not by {', '.join(passed_over)}" if passed_over else ""
            served.setdefault(f"attention by {row.name}{why_not}")
            return row
        if row.name not in ACROSS or call.shards > 1:
            passed_over.append(f"{row.name} ({why})")
    raise UserError(f"no attention backend can serve this call: {', '.join(passed_over)}")


def find_backend(name: str) -> Backend:
    """A row by its name: one of the table, "ring:splash" and its like, or "my_package.module:row".

    Raises:
        UserError: there is none.
    """
    if is_dotted(name):
        row = resolve(name, "model.attention.backend")
        if not isinstance(row, Backend):
            raise UserError(f"model.attention.backend is {name!r}, which is no attention.Backend")
        return row
    outer, _, inner = name.partition(":")
    rows = {row.name: row for row in BACKENDS}
    if inner and outer in ACROSS and inner in rows and inner not in ACROSS:
        return ACROSS[outer](inner)
    if name not in rows:
        raise UserError(
            f"no attention backend {name!r}; there are auto, {', '.join(rows)}; ring and ulysses "
            "also with what each device runs, as in ring:chunked"
        )
    return rows[name]


def unknown_backend(name: str) -> str | None:
    """Why a name stands for no backend; None where it does."""
    try:
        if name != "auto":
            find_backend(name)
    except UserError as error:
        return f"model.attention.backend: {error}"
    return None


def _shares(call: Call) -> str | None:
    return indivisible(call.split, call.q.shape[0], call.q.shape[2], call.k.shape[2])


# One device ---------------------------------------------------------------------------------------
# On a mesh they run on each device's share; keys of a split length are gathered first. `xla` and
# `reference` are left to the partitioner.


def _splash(call: Call) -> Splash:
    return Splash(interpret=call.platform != "tpu")


def _no_splash(call: Call) -> str | None:
    if call.platform == "gpu":
        return "splash is a kernel for TPUs"
    return splash.unsupported(call.mask, call.bias, call.dropout) or _shares(call)


def _slow_splash(call: Call) -> str | None:
    if call.platform != "tpu":
        return "splash is interpreted where there is no TPU"
    queries = call.q.shape[1]
    if queries < splash.LANES:
        return f"splash pads {queries} queries to {splash.LANES}"
    return None


def _no_cudnn(call: Call) -> str | None:
    if call.platform != "gpu":
        return "cuDNN runs on NVIDIA GPUs"
    return cudnn.unsupported(*call.arguments) or _shares(call)


def _large_scores(call: Call) -> str | None:
    if call.scores_bytes > SCORES_LIMIT:
        return f"it would hold {call.scores_bytes / 2**30:.1f} GiB of scores on each device"
    return None


def _in_blocks(kernel: Kernel) -> Local:
    return functools.partial(attend_in_blocks, kernel)


def _on_shares(function: Local, call: Call) -> Array:
    return per_device(function, call.split, *call.arguments)


# Across devices -----------------------------------------------------------------------------------
# Where the length is not split they are what each device runs: so a model that was trained on many
# devices decodes on one.


def _whole(call: Call) -> str | None:
    return "the length is not split over devices" if call.shards == 1 else None


def _ring(inner: str = "") -> Backend:
    """`inner` is the block kernel; the first that can serve where none is named."""

    def kernel(call: Call) -> Kernel:
        fits = _no_splash(call) is None and _slow_splash(call) is None
        return _splash(call) if inner == "splash" or (not inner and fits) else Chunked()

    def compute(call: Call) -> Array:
        if call.split is None or call.shards == 1:
            return _on_shares(_in_blocks(kernel(call)), call)
        function = functools.partial(ring.attend, kernel(call), call.split.length)
        pieces = 2 if ring.balanced(call.mask) else 1
        return per_device(function, call.split, *call.arguments, keys="split", pieces=pieces)

    def unsupported(call: Call) -> str | None:
        if inner not in ("", "chunked", "splash"):
            return f"it runs on block kernels, chunked or splash, which {inner} is not"
        if call.dropout is not None:
            return "a ring drops no attention weights"
        return (_no_splash(call) if inner == "splash" else None) or _shares(call)

    return Backend(f"ring:{inner}" if inner else "ring", compute, unsupported, _whole)


def _ulysses(inner: str = "auto") -> Backend:
    """`inner` is the backend that each device runs on all positions of its heads."""

    def compute(call: Call) -> Array:
        if call.split is None or call.shards == 1:
            return select(inner, call).compute(call)

        def function(q: Any, k: Any, v: Any, mask: Mask, bias: Any, dropout: Any) -> Array:
            inside = Call(q, k, v, mask, bias, dropout, None, call.platform)
            return select(inner, inside).compute(inside)

        local = functools.partial(ulysses.attend, function, call.split.length)
        return per_device(local, call.split, *call.arguments, keys="split")

    def unsupported(call: Call) -> str | None:
        heads = call.q.shape[2] // (call.split.count(call.split.heads) if call.split else 1)
        if heads % call.shards:
            return f"{heads} heads cannot be dealt to {call.shards} devices: a ring does not ask"
        if inner != "auto":
            return find_backend(inner).unsupported(
                dataclasses.replace(call, split=None)
            ) or _shares(call)
        return _shares(call)

    name = "ulysses" if inner == "auto" else f"ulysses:{inner}"
    return Backend(name, compute, unsupported, _whole)


ACROSS: dict[str, Callable[[str], Backend]] = {"ring": _ring, "ulysses": _ulysses}

# In the order in which "auto" tries them. `reference` is last: it serves everything.
BACKENDS: tuple[Backend, ...] = (
    _ring(),
    _ulysses(),
    Backend(
        "splash",
        lambda call: _on_shares(_in_blocks(_splash(call)), call),
        _no_splash,
        _slow_splash,
    ),
    Backend("cudnn", lambda call: _on_shares(cudnn.attend, call), _no_cudnn),
    Backend("xla", lambda call: xla.attend(*call.arguments), lambda _: None, _large_scores),
    Backend("chunked", lambda call: _on_shares(_in_blocks(Chunked()), call), _shares),
    Backend("reference", lambda call: reference.attend(*call.arguments), lambda _: None),
)
