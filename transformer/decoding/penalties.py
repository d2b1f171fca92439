"""The length penalty, by name: a hypothesis of n tokens scores log_prob / penalty(n).

n counts the tokens a hypothesis is made of, `</s>` included and `<s>` not, as in the decoders that
made the two forms known (tensor2tensor's for `gnmt`, Hugging Face's for `power`). Each is 1 at
n = 1 whatever alpha is, and alpha = 0 ranks by log-probability alone.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from transformer.errors import UserError

Penalty = Callable[[Int[Array, "*lengths"]], Float[Array, "*lengths"]]


def _gnmt(lengths: Float[Array, "*lengths"], alpha: float | Array) -> Float[Array, "*lengths"]:
    """((5 + n) / 6)^alpha: Wu et al. 2016, Eq. 14; AIAYN §6.1 uses it with alpha = 0.6."""
    return ((5.0 + lengths) / 6.0) ** alpha


def _power(lengths: Float[Array, "*lengths"], alpha: float | Array) -> Float[Array, "*lengths"]:
    """n^alpha: the mean log-probability of a token where alpha = 1."""
    return lengths**alpha


_PENALTIES = {"gnmt": _gnmt, "power": _power}


def length_penalty(name: str, alpha: float | Array) -> Penalty:
    """The penalty `name` with its exponent: a function of lengths, float32, monotone in them.

    Raises:
        UserError: no penalty has that name.
    """
    if name not in _PENALTIES:
        raise UserError(f"length_penalty is {name!r}; choose one of {', '.join(_PENALTIES)}")
    return lambda lengths: _PENALTIES[name](lengths.astype(jnp.float32), alpha)
