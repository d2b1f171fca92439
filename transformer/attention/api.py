"""`attend`: the one way to compute attention, by whichever backend of the table."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.attention.backends import Call, select
from transformer.attention.masks import Mask
from transformer.attention.reference import Dropout
from transformer.attention.sharded import Split
from transformer.errors import UserError

# Scores to add, from positions: (q_positions_BT, k_positions_BS) -> [B or 1, H or 1, T, S]. What is
# learned in it must be leaves of a pytree (a `flax.struct.dataclass` with `__call__`).
Bias = Callable[[Int[Array, "B T"], Int[Array, "B S"]], Float[Array, "..."]]


def attend(
    q: Float[Array, "B T H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G U"],
    *,
    mask: Mask | None = None,
    bias: Bias | None = None,
    dropout: Dropout | None = None,
    backend: str = "auto",
    split: Split | None = None,
) -> Float[Array, "B T H U"]:
    """softmax(q kᵀ / √K + bias) v, over the keys that the mask allows (AIAYN §3.2.1, Eq. 1).

    Args:
        q, k, v: queries, keys and values; G key/value heads serve H query heads in equal groups.
        mask: which keys each query may see; a query that may see none gets zeros. None: all.
        bias: a function of positions whose result, finite, is added to the scaled scores.
        dropout: a rate and a key, applied to the weights.
        backend: a name of the table, or "auto" for the first that can serve. `ring` and `ulysses`
            also take what each device runs, behind a colon: "ring:chunked".
        split: which of the arrays' axes are split over which of a mesh's; None: one device.

    Returns:
        The values' weighted mean for each query, in q's dtype.

    Raises:
        UserError: no such backend, the one asked for cannot serve this call, and why, G does not
            divide H, or the mask is of other sizes.
    """
    (B, T, H, _), (_, S, G, _) = q.shape, k.shape
    mask = (mask or Mask.full()).broadcast_to(B, T, S)
    if H % G:
        raise UserError(f"{H} query heads cannot share {G} key/value heads in equal groups")
    if bias is not None and jax.tree_util.all_leaves([bias]):
        bias = jax.tree_util.Partial(bias)  # a plain function: nothing in it is learned
    bias = jax.tree.map(jnp.asarray, bias)
    platform = split.platform if split else jax.default_backend()
    call = Call(q, k, v, mask, bias, dropout, split, platform)
    return select(backend, call).compute(call)
