"""Which source words a recurrent decoder looks at (Bahdanau et al. 2015; Luong et al. 2015).

A score for each pair of a decoder's state and an encoder's, a softmax over the source, and a mean
of the encoder's states by these weights: the context.

    bahdanau       vᵀ tanh(Wₐ q + Uₐ h)     Bahdanau et al. §A.1.2; q is the state before the step
    luong_concat   the same, Eq. 8 "concat"; q is the state after it, as in all of Luong's
    luong_general  qᵀ Wₐ h                   Luong et al., Eq. 8 "general"
    luong_dot      qᵀ h                      Luong et al., Eq. 8 "dot"
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from transformer.config import ModelConfig
from transformer.models.initializers import xavier
from transformer.models.recurrent.recurrence import Product, Weight
from transformer.sharding import constrain, parameter

KINDS = ("none", "bahdanau", "luong_dot", "luong_general", "luong_concat")
ADDITIVE = ("bahdanau", "luong_concat")
SPECS = {
    "align_query": "BWR,RQ->BWQ",
    "align_keys": "BWR,BSR->BWS",
    "align_values": "BWS,BSR->BWR",
}


class Alignment(nn.Module):
    """One kind of alignment: its parameters, and what it makes of a memory."""

    config: ModelConfig

    def setup(self) -> None:
        kind, R = self.config.recurrent.attention, self.config.recurrent.d_hidden
        if kind != "luong_dot":
            self.key = parameter(self, "key", xavier(0, 1), ("embed", "state"), (R, R))
        if kind in ADDITIVE:
            self.query = parameter(self, "query", xavier(0, 1), ("embed", "state"), (R, R))
            self.score = parameter(self, "score", nn.initializers.normal(R**-0.5), ("state",), (R,))

    def prepare(self, memory: Float[Array, "B S R"]) -> dict[str, Array]:
        """All that depends on the source alone: computed once, whatever the target's length."""
        kind, fixed = self.config.recurrent.attention, {"values": memory}
        if kind == "luong_dot":
            return {**fixed, "keys": memory}
        # General: qᵀ (Wₐ h). Additive: Uₐ h.
        key_RQ = constrain(self.key.astype(memory.dtype), None, "hidden")
        keys_BSQ = jnp.einsum("BSR,RQ->BSQ", memory, key_RQ)
        return {**fixed, "keys": constrain(keys_BSQ, "batch", None, "hidden")}

    def weights(self, prepared: dict[str, Array]) -> tuple[dict[str, Weight], dict[str, Array]]:
        """What is multiplied by, and the constants, of `align`."""
        products = {"align_values": Weight(prepared["values"])}
        if self.config.recurrent.attention not in ADDITIVE:
            return {**products, "align_keys": Weight(prepared["keys"])}, {}
        dtype = prepared["keys"].dtype
        products["align_query"] = Weight(constrain(self.query.astype(dtype), None, "hidden"))
        return products, {"keys": prepared["keys"], "score": self.score.astype(dtype)}

    def record(self, weights: Float[Array, "B T S"]) -> None:
        """Keeps weights for whoever asks for the collection "attention": one layer, one head."""
        self.sow("attention", "weights", weights[None, :, None])


def align(
    product: Product,
    query: Float[Array, "B W R"],
    constants: dict[str, Any],
    mask: Bool[Array, "B S"],
) -> tuple[Float[Array, "B W R"], Float[Array, "B W S"]]:
    """Context and weights of W queries a sentence; zeros where the source has nothing to see."""
    if "score" in constants:
        energy_BWR = product("align_query", query)
        energy_BWSR = jnp.tanh(energy_BWR[:, :, None] + constants["keys"][:, None])
        scores_BWS = jnp.einsum("BWSR,R->BWS", energy_BWSR, constants["score"])
    else:
        scores_BWS = product("align_keys", query)
    mask_BWS = jnp.broadcast_to(mask[:, None], scores_BWS.shape)
    scores_BWS = jnp.where(mask_BWS, scores_BWS.astype(jnp.float32), -1e30)
    exp_BWS = jnp.exp(scores_BWS - jax.lax.stop_gradient(scores_BWS.max(-1, keepdims=True)))
    exp_BWS = jnp.where(mask_BWS, exp_BWS, 0.0)
    weights_BWS = exp_BWS / jnp.maximum(exp_BWS.sum(-1, keepdims=True), 1e-30)
    return product("align_values", weights_BWS.astype(query.dtype)), weights_BWS
