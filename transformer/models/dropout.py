"""Dropout of activations (Srivastava et al. 2014): on where a call brings a key for it."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from transformer.upstream.threefry import bernoulli


class Dropout(nn.Module):
    """Zeroes activations at random, and scales the rest by 1 / (1 - rate)."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        keep = dropout_mask(self, self.rate, x.shape)
        return x if keep is None else jnp.where(keep, x * (1.0 / (1.0 - self.rate)), 0.0)


def dropout_mask(
    module: nn.Module, rate: float, shape: tuple[int, ...]
) -> Bool[Array, "..."] | None:
    """True where dropout keeps an activation; None where nothing is dropped in this call."""
    if rate == 0.0 or not module.has_rng("dropout"):
        return None
    keep = bernoulli(module.make_rng("dropout"), 1.0 - rate, shape)
    # Fused into what uses it, the generator makes a long sequence's step take three times as
    # long to compile for TPUs.
    return jax.lax.optimization_barrier(keep)
