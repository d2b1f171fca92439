"""`jax.lax.top_k` of few of many, by parts.

On CPUs XLA sorts whole rows, which are a vocabulary's logits here. To be deleted when XLA's own is
as fast there.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

PART = 128  # entries of which one maximum is taken


def top_k_of_parts(
    x_BWV: Float[Array, "B W V"], count: int, allowed: Callable[[Array], Array]
) -> tuple[Float[Array, "B W C"], Int[Array, "B W C"]]:
    """Takes the `count` largest of what is allowed, -inf elsewhere; of equals the lower index.

    The C best are among the C parts whose own best are best, and what is left behind whole parts.
    """
    B, W, V = x_BWV.shape
    parts, ids_V = V // PART, jnp.arange(V, dtype=jnp.int32)
    candidates_BWN = jnp.broadcast_to(ids_V, x_BWV.shape)
    if parts > 2 * count:
        whole = parts * PART
        masked_BWV = jnp.where(allowed(ids_V[None, None, :whole]), x_BWV[..., :whole], -jnp.inf)
        best_BWP = jnp.max(masked_BWV.reshape(B, W, parts, PART), axis=3)
        _, chosen_BWC = jax.lax.top_k(best_BWP, count)
        chosen_BWC = jnp.sort(chosen_BWC, axis=2)  # so that among equals the lower index is first
        inside_BWN = (chosen_BWC[..., None] * PART + ids_V[None, None, None, :PART]).reshape(
            B, W, count * PART
        )
        candidates_BWN = jnp.concatenate([inside_BWN, candidates_BWN[..., whole:]], axis=2)
        x_BWV = jnp.take_along_axis(x_BWV, candidates_BWN, axis=2)
    scores_BWC, places_BWC = jax.lax.top_k(
        jnp.where(allowed(candidates_BWN), x_BWV, -jnp.inf), count
    )
    return scores_BWC, jnp.take_along_axis(candidates_BWN, places_BWC, axis=2)
