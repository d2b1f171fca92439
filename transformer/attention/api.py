"""`attend`: the one way to compute attention, and the ordered table of backends behind it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array, Float, Int

from transformer.attention import reference, xla
from transformer.attention.masks import Mask
from transformer.attention.reference import Dropout, attention_weights
from transformer.errors import UserError

log = logging.getLogger(__name__)

# Scores to add, from positions: (q_positions_BT, k_positions_BS) -> bias, broadcastable to BHTS.
Bias = Callable[[Int[Array, "B T"], Int[Array, "B S"]], Float[Array, "..."]]


# (q_BTHK, k_BSGK, v_BSGU, *, mask, bias, dropout) -> out_BTHU
Attention = Callable[..., Float[Array, "B T H U"]]


@dataclass(frozen=True)
class Backend:
    """A row of the table: how to compute, and what it cannot serve."""

    name: str
    compute: Attention
    unsupported: Callable[..., str | None]  # (q, k, v, mask, bias, dropout) -> the reason, or None


# In the order in which "auto" tries them. `reference` is last: it serves everything.
BACKENDS: tuple[Backend, ...] = (
    Backend("xla", xla.attend, xla.unsupported),
    Backend("reference", reference.attend, reference.unsupported),
)


def attend(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G U"],
    *,
    mask: Mask,
    bias: Bias | None = None,
    dropout: Dropout | None = None,
    backend: str = "auto",
) -> Float[Array, "B T H U"]:
    """softmax(q kᵀ / √K + bias) v, over the keys that the mask allows (AIAYN §3.2.1, Eq. 1).

    Args:
        q, k, v: queries, keys and values; G key/value heads serve H query heads in equal groups.
        mask: which keys each query may see; a query that may see none gets zeros.
        bias: a function of positions whose result is added to the scaled scores.
        dropout: a rate and a key, applied to the weights.
        backend: a name of the table, or "auto" for the first that can serve.

    Returns:
        The values' weighted mean for each query, in q's dtype.

    Raises:
        UserError: no such backend, or the one asked for cannot serve this call, and why.
    """
    row = select(backend, q, k, v, mask=mask, bias=bias, dropout=dropout)
    return row.compute(q, k, v, mask=mask, bias=bias, dropout=dropout)


def select(
    backend: str,
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Mask,
    bias: Bias | None = None,
    dropout: Dropout | None = None,
) -> Backend:
    """The row that serves this call. Only "auto" falls through, and it logs why."""
    names = [row.name for row in BACKENDS]
    if backend not in ("auto", *names):
        raise UserError(f"attention backend {backend!r} does not exist: auto, {', '.join(names)}")
    for row in BACKENDS:
        if backend in ("auto", row.name):
            why = row.unsupported(q, k, v, mask, bias, dropout)
            if why is None:
                return row
            if backend != "auto":
                raise UserError(f"attention backend {backend!r} cannot serve this call: {why}")
            log.info("attention: passing over backend %s: %s", row.name, why)
    raise UserError("no attention backend can serve this call")


__all__ = ["BACKENDS", "Backend", "Bias", "Dropout", "attend", "attention_weights", "select"]
