"""Greedy search: the most probable token at every position. Equal to a beam of 1, and cheaper."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from transformer.decoding.penalties import Penalty
from transformer.decoding.search import Hypotheses, Step, best_next, score_factors
from transformer.models.seq2seq import Cache


@struct.dataclass
class _State:
    index: Int[Array, ""]  # int32; positions written so far
    cache: Cache
    newest_B1: Int[Array, "B 1"]  # int32; the token to read next
    tokens_BL: Int[Array, "B L"]  # int32; PAD where nothing is written
    lengths_B: Int[Array, "B"]  # int32
    log_probs_B: Float[Array, "B"]  # float32
    live_B: Bool[Array, "B"]  # no EOS yet


def greedy_search(
    step: Step,
    cache: Cache,
    *,
    pad: int,
    bos: int,
    eos: int,
    length: int,
    max_lengths_B: Int[Array, "B"],
    penalty: Penalty,
) -> Hypotheses:
    """One hypothesis a sentence, W = 1. Arguments and result as in `beam_search`."""
    limits_B = jnp.minimum(max_lengths_B, length)

    def advance(state: _State) -> _State:
        logits_B1V, cache = step(state.newest_B1, state.cache)
        last_B = state.index + 1 >= limits_B
        best_B11, tokens_B11 = best_next(logits_B1V, last_B, 1, pad=pad, bos=bos, eos=eos)
        newest_B = jnp.where(state.live_B, tokens_B11[:, 0, 0], pad)
        gains_B = jnp.where(state.live_B, best_B11[:, 0, 0], 0.0)
        return _State(
            index=state.index + 1,
            cache=cache,
            newest_B1=newest_B[:, None],
            tokens_BL=state.tokens_BL.at[:, state.index].set(newest_B),
            lengths_B=state.lengths_B + state.live_B.astype(jnp.int32),
            log_probs_B=state.log_probs_B + gains_B,
            live_B=state.live_B & (newest_B != eos),
        )

    (batch,) = limits_B.shape
    start = _State(
        index=jnp.int32(0),
        cache=cache,
        newest_B1=jnp.full((batch, 1), bos, jnp.int32),
        tokens_BL=jnp.full((batch, length), pad, jnp.int32),
        lengths_B=jnp.zeros(batch, jnp.int32),
        log_probs_B=jnp.where(limits_B > 0, 0.0, -jnp.inf),
        live_B=limits_B > 0,
    )
    end = jax.lax.while_loop(lambda state: jnp.any(state.live_B), advance, start)
    factors_B = score_factors(penalty, length)[jnp.maximum(end.lengths_B - 1, 0)]
    return Hypotheses(
        tokens=end.tokens_BL[:, None],
        lengths=end.lengths_B[:, None],
        log_probs=end.log_probs_B[:, None],
        scores=(end.log_probs_B * factors_B)[:, None],
    )
