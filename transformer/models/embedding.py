"""Embeddings and the output projection: words to vectors, and vectors to logits.

Weight tying, the scale √D, a bias and a soft cap of logits.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from transformer.config import ModelConfig
from transformer.models.initializers import embedding_initializer, embedding_width, width_ratio
from transformer.models.precision import compute_dtype
from transformer.models.products import multiply, product
from transformer.models.quantization import Int8
from transformer.sharding import constrain, parameter


class Embedding(nn.Module):
    """Looks words up in a table, and projects vectors to logits.

    Weight tying: three ways, source, target and output projection share one table (AIAYN §3.4);
    two ways, the source has its own; not tied, each has (the output's as wide as `output_width`).
    With `one_input`, source and target are read by one table, however these are tied.
    """

    config: ModelConfig
    output_width: int
    one_input: bool = False

    def setup(self) -> None:
        c, D = self.config, self.config.d_model
        self.table = self._table("table", D)
        tied = c.tied
        shared = self.one_input or tied == "three_way"
        self.source_table = self.table if shared else self._table("source_table", D)
        self.output_table = self.table
        if tied == "none":
            self.output_table = self._table("output_table", self.output_width)
        if c.logits_bias:
            zeros = nn.initializers.zeros
            self.output_bias = parameter(self, "output_bias", zeros, ("vocab",), (c.vocab_size,))

    def _table(self, name: str, width: int) -> Any:
        init = embedding_initializer(self.config, width)
        return parameter(self, name, init, ("vocab", "embed"), (self.config.vocab_size, width))

    def _gathered(self, table: Float[Array, "V D"]) -> Float[Array, "V D"]:
        # Whole along the width before either use: a lookup in a table split both ways would make
        # the partitioner copy it to every device.
        return constrain(table.astype(compute_dtype(self.config)), "vocab", None)

    def _look_up(self, table: Any, ids: Array) -> Array:
        c = self.config
        if isinstance(table, Int8):
            x_BTD = table.rows(ids, compute_dtype(c))
        else:
            x_BTD = jnp.take(self._gathered(table), ids, axis=0)
        if c.scale_embeddings:
            x_BTD = x_BTD * embedding_width(c, c.d_model) ** 0.5
        return constrain(x_BTD, "batch", "length", "hidden")

    def source(self, ids: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """Embeddings times √D (§3.4)."""
        return self._look_up(self.source_table, ids)

    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Embeds target ids, as `source` does source ids."""
        return self._look_up(self.table, ids)

    def logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """The output projection, accumulated and returned in float32."""
        c, table, hidden = self.config, self.output_table, hidden.astype(compute_dtype(self.config))
        if isinstance(table, Int8):
            logits_BTV = product("BTD,VD->BTV", hidden, table, jnp.float32)
        else:
            logits_BTV = multiply("BTD,VD->BTV", hidden, self._gathered(table), jnp.float32)
        if (ratio := width_ratio(c)) != 1.0:
            logits_BTV = logits_BTV / ratio
        if c.logits_bias:
            logits_BTV = logits_BTV + self.output_bias[None, None]
        if c.logit_soft_cap:  # within ± the cap (Gemma 2, 2024, §2)
            logits_BTV = c.logit_soft_cap * jnp.tanh(logits_BTV / c.logit_soft_cap)
        return constrain(logits_BTV, "batch", "length", "vocab")


def gather_tables(params: Any, dtype: Any) -> Any:
    """Gathers a model's embedding tables along their width, once, and casts them to `dtype`.

    A table is read up to three times: by source, target and output. Gathered once for all of them,
    its gradients are summed before they travel between devices, and travel once.
    """

    @jax.custom_vjp
    def whole(table_VD: Array) -> Array:
        return constrain(table_VD.astype(dtype), "vocab", None)

    def backward(_: None, d_VD: Array) -> tuple[Array]:
        return (constrain(d_VD, "vocab", "embed").astype(jnp.float32),)

    whole.defvjp(lambda table_VD: (whole(table_VD), None), backward)
    leaves = {n: whole(x) if x.ndim == 2 else x for n, x in params["embedding"].items()}
    return {**params, "embedding": leaves}
