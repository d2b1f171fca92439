"""The contract that every model family answers, and what passes between its calls.

Training, decoding, evaluation and inspection use these calls and nothing else, so that a new family
needs no change anywhere else:

    memory = model.apply(variables, source, method="encode")
    hidden_BTD = model.apply(variables, target, memory, method="decode")         # teacher forcing
    logits_BTV = model.apply(variables, hidden_BTD, method="logits")
    cache = model.apply(variables, memory, length, beams, method="init_cache")
    hidden_BWD, cache = model.apply(variables, tokens_BW, cache, method="step")  # one position

Logits are a call of their own so that the loss can project chunk by chunk. Dropout is on exactly
where a call brings `rngs={"dropout": key}`. Attention weights are recorded in the collection
"attention" where a call makes it mutable. Every call needs a `sharding.Layout` in force.
"""

from typing import Any, Self

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from transformer.batch import Batch, Source, Target
from transformer.config import ModelConfig


@struct.dataclass
class Memory:
    """The encoder's output.

    `final` is whatever else a family's decoder starts from (a recurrent encoder's last state), a
    pytree with B as the axis behind the layers' N; () where there is none.
    """

    hidden: Float[Array, "B S D"]
    positions: Int[Array, "B S"]
    segments: Int[Array, "B S"]
    final: Any = ()


@struct.dataclass
class Cache:
    """What decoding carries from one position to the next, for W hypotheses a sentence.

    Each family adds fields of its own: a KV cache, recurrent states.
    """

    index: Int[Array, ""]  # int32; how many positions have been written
    segments: Int[Array, "B S"]  # the memory's, so that padding stays masked

    def reorder(self, parents_BW: Int[Array, "B W"]) -> Self:
        """Hypothesis w continues from hypothesis `parents_BW[b, w]` of the same sentence."""
        raise NotImplementedError

    @property
    def per_source(self) -> Any:
        """The arrays that depend on the source alone: computed once, shared by its hypotheses."""
        raise NotImplementedError

    @property
    def per_hypothesis(self) -> Any:
        """The arrays that belong to the hypotheses."""
        raise NotImplementedError


def pick_parents(leaf: Array, parents_BW: Int[Array, "B W"], axis: int) -> Array:
    """Each hypothesis's entry becomes its parent's; W is at `axis`, B before it."""
    shape = (1,) * (axis - 1) + parents_BW.shape + (1,) * (leaf.ndim - axis - 1)
    return jnp.take_along_axis(leaf, parents_BW.reshape(shape), axis=axis)


class Seq2Seq(nn.Module):
    """A model family: the calls named above, on one frozen configuration."""

    config: ModelConfig

    @property
    def takes_packed_rows(self) -> bool:
        """Whether a row may hold several sentences, apart by their segments."""
        return True

    @classmethod
    def unsupported(cls, config: ModelConfig) -> str | None:
        """Why this family cannot be built as `config` asks; None where it can."""
        raise NotImplementedError

    @classmethod
    def flops_per_token(cls, config: ModelConfig, length: int) -> float:
        """Forward FLOPs of one source and one target token in sentences of `length` tokens."""
        raise NotImplementedError

    def encode(self, source: Source) -> Memory:
        raise NotImplementedError

    def decode(self, target: Target, memory: Memory) -> Float[Array, "B T D"]:
        raise NotImplementedError

    def logits(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """float32 scores of every vocabulary entry, before the softmax."""
        raise NotImplementedError

    def init_cache(self, memory: Memory, length: int, beams: int) -> Cache:
        """An empty cache for `length` positions of `beams` hypotheses a sentence."""
        raise NotImplementedError

    def step(self, tokens: Int[Array, "B W"], cache: Any) -> tuple[Float[Array, "B W D"], Cache]:
        """Reads the tokens at position `cache.index` and gives the hidden state after them.

        `cache` is what `init_cache` or the step before returned.
        """
        raise NotImplementedError

    def __call__(self, batch: Batch) -> Float[Array, "B T V"]:
        """The whole model in teacher forcing: what initialisation runs, and the simplest use."""
        return self.logits(self.decode(batch.target, self.encode(batch.source)))
