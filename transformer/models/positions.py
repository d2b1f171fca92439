"""Where a token stands: functions of positions, so that any length and packed rows are served."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def sinusoidal(positions: Int[Array, "B T"], width: int) -> Float[Array, "B T D"]:
    """Sines at even indices and cosines at odd ones (AIAYN §3.5), float32.

    Wavelengths rise geometrically from 2π to 10000·2π: PE(p, 2i) = sin(p / 10000^(2i/D)).
    """
    frequencies_E = jnp.power(10_000.0, -jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles_BTE = positions[:, :, None].astype(jnp.float32) * frequencies_E[None, None]
    pairs_BTE2 = jnp.stack([jnp.sin(angles_BTE), jnp.cos(angles_BTE)], axis=-1)
    return pairs_BTE2.reshape(*positions.shape, width)
