"""What greedy and beam search share: what they are given, what they give, what may follow a prefix.

Every hypothesis ends in EOS: at the last position that a sentence's limit leaves, EOS is the only
candidate. So a hypothesis cut short carries the log-probability of ending there, as any other does,
and needs no rule of its own to be ranked.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int
from numpy import ndarray

from transformer.decoding.penalties import Penalty
from transformer.models.seq2seq import Cache
from transformer.upstream.top_k import top_k_of_parts

Step = Callable[[Int[Array, "B W"], Cache], tuple[Float[Array, "B W V"], Cache]]
"""Reads one token of each hypothesis: the logits of the next one, and the cache with it written."""


@struct.dataclass
class Hypotheses:
    """Each sentence's finished hypotheses, best score first; NumPy's once fetched."""

    tokens: Int[Array | ndarray, "B W L"]  # int32; EOS included, PAD behind it
    lengths: Int[Array | ndarray, "B W"]  # int32; tokens, EOS included
    log_probs: Float[Array | ndarray, "B W"]  # float32; natural; -inf = there is no such hypothesis
    scores: Float[Array | ndarray, "B W"]  # float32; log_probs / penalty(lengths)


def best_next(
    logits_BWV: Float[Array, "B W V"],
    last_B: Bool[Array, "B"],
    count: int,
    *,
    pad: int,
    bos: int,
    eos: int,
) -> tuple[Float[Array, "B W C"], Int[Array, "B W C"]]:
    """The C most probable next tokens of each hypothesis, best first: log-probabilities and ids.

    The softmax runs over the whole vocabulary, then PAD and BOS are forbidden, and where `last_B`
    all but EOS is: what is left keeps the probability that the model gave it, in float32. A token
    that may not come has -inf.
    """
    logits_BWV = logits_BWV.astype(jnp.float32)
    highest_BW1 = jnp.max(logits_BWV, axis=-1, keepdims=True)
    sum_BW1 = jnp.sum(jnp.exp(logits_BWV - highest_BW1), axis=-1, keepdims=True)

    def may_come(ids: Int[Array, "..."]) -> Bool[Array, "..."]:
        last = last_B.reshape(-1, *[1] * (ids.ndim - 1))
        return (ids != pad) & (ids != bos) & ((ids == eos) | ~last)

    best_BWC, ids_BWC = top_k_of_parts(logits_BWV, count, may_come)
    return best_BWC - highest_BW1 - jnp.log(sum_BW1), ids_BWC


def score_factors(penalty: Penalty, length: int) -> Float[Array, "L"]:
    """float32 1 / penalty of 1 ... `length` tokens: what a log-probability times gives the score.

    One table of factors for all uses. A power may differ in its last bit between a scalar and a
    vector, and so may a quotient, which XLA turns into a product where the divisor is a scalar; but
    greedy ≡ beam 1 and the beam's stopping bound compare such numbers.
    """
    return 1.0 / penalty(jnp.arange(1, length + 1)).astype(jnp.float32)
