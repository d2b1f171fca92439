"""Mixed precision: parameters are float32, products are computed in the compute dtype."""

import jax.numpy as jnp

from transformer.config import ModelConfig
from transformer.sharding import current


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """The dtype of products: `model.dtype`; `auto` is bfloat16 on hardware that multiplies it.

    Softmax, normalisation statistics, logits, loss and optimizer state stay float32 whatever it is.
    """
    if config.dtype == "auto":
        return jnp.dtype(jnp.float32 if current().platform == "cpu" else jnp.bfloat16)
    return jnp.dtype(config.dtype)
