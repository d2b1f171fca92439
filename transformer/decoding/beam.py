"""Beam search over W hypotheses a sentence (Graves 2012; Sutskever et al. 2014, §3.2).

Each position takes the W most probable continuations of a sentence's live hypotheses. Those that
end in EOS join the finished ones, ranked by log_prob / penalty(length); the others live on, and the
next position has W continuations again. An EOS behind the first W candidates does not count, and a
finished hypothesis leaves its place to nothing that ranked below it. So a beam of 1 is greedy
search with any penalty, and a beam as wide as the space of outputs finds the best of them all.

A sentence is over when none of its live hypotheses can still win, and not before: log-probabilities
only fall and penalties are monotone, so that the score of whatever a live hypothesis becomes is at
most its log-probability over the penalty of the next length or of the longest one allowed.

Beside Hugging Face's `generate`: that stops a sentence by `early_stopping` (True: as soon as W
hypotheses are finished; False: when the best live one, at its present length, is behind the worst
finished one, which a longer one may still overtake; "never": about as here). And it looks at 2 W
continuations, so that a finished hypothesis gives its place to a live one; here its place stays
empty, and the beam narrows, which can cost the best hypothesis.
"""

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
    newest_BW: Int[Array, "B W"]  # int32; the token to read next
    prefixes_BWL: Int[Array, "B W L"]  # int32; the live hypotheses; PAD where nothing is written
    log_probs_BW: Float[Array, "B W"]  # float32; of the prefixes; -inf = nothing lives here
    finished: Hypotheses  # the W best so far


def beam_search(
    step: Step,
    cache: Cache,
    *,
    pad: int,
    bos: int,
    eos: int,
    width: int,
    n_best: int,
    length: int,
    max_lengths_B: Int[Array, "B"],
    penalty: Penalty,
) -> Hypotheses:
    """The `n_best` finished hypotheses with the best scores that a beam of `width` finds.

    Args:
        step: one position of the model: reads tokens_BW (int32), gives the next one's logits_BWV.
        cache: as it stands before the first position, for `width` hypotheses a sentence.
        pad: the id behind a hypothesis's end; never part of one.
        bos: the id that every hypothesis starts from; never part of one.
        eos: the id that ends a hypothesis.
        width: W, hypotheses of a sentence that live at once.
        n_best: how many to give back, at most `width`; the search goes on until these are certain.
        length: L, positions that the cache has room for.
        max_lengths_B: each sentence's own limit in tokens, EOS included; capped at `length`. At 0
            there is no hypothesis.
        penalty: of lengths, monotone; see `length_penalty`.

    Returns:
        Hypotheses [B, n_best]; where a sentence has fewer, log-probability and score are -inf.
    """
    limits_B = jnp.minimum(max_lengths_B, length)
    factors_L = score_factors(penalty, length)

    def advance(state: _State) -> _State:
        logits_BWV, cache = step(state.newest_BW, state.cache)
        last_B = state.index + 1 >= limits_B
        count = min(width, logits_BWV.shape[2])  # of each parent: no more can be among the best W
        gains_BWC, ids_BWC = best_next(logits_BWV, last_B, count, pad=pad, bos=bos, eos=eos)
        log_probs_BW, parents_BW, tokens_BW = _best_continuations(
            state.log_probs_BW[..., None] + gains_BWC, ids_BWC
        )
        prefixes_BWL = jnp.take_along_axis(state.prefixes_BWL, parents_BW[..., None], axis=1)
        prefixes_BWL = prefixes_BWL.at[:, :, state.index].set(tokens_BW)

        ended_BW = tokens_BW == eos
        ended = Hypotheses(
            tokens=prefixes_BWL,
            lengths=jnp.full_like(tokens_BW, state.index + 1),
            log_probs=jnp.where(ended_BW, log_probs_BW, -jnp.inf),
            scores=jnp.where(ended_BW, log_probs_BW * factors_L[state.index], -jnp.inf),
        )
        finished = _best_of(state.finished, ended)
        live_BW = jnp.where(ended_BW, -jnp.inf, log_probs_BW)
        hopes_B = _best_reachable(live_BW.max(axis=1), state.index + 2, limits_B, factors_L)
        over_B = hopes_B <= finished.scores[:, n_best - 1]
        return _State(
            index=state.index + 1,
            cache=cache.reorder(parents_BW),
            newest_BW=tokens_BW,
            prefixes_BWL=prefixes_BWL,
            # A sentence that is over lives no more: it neither changes nor keeps the others going.
            log_probs_BW=jnp.where(over_B[:, None], -jnp.inf, live_BW),
            finished=finished,
        )

    start = _start(cache, limits_B, width=width, length=length, pad=pad, bos=bos)
    end = jax.lax.while_loop(_any_live, advance, start)
    return jax.tree.map(lambda leaf: leaf[:, :n_best], end.finished)


def _start(
    cache: Cache, limits_B: Int[Array, "B"], *, width: int, length: int, pad: int, bos: int
) -> _State:
    shape_BW = (*limits_B.shape, width)
    nothing_BW = jnp.full(shape_BW, -jnp.inf, jnp.float32)
    empty_BWL = jnp.full((*shape_BW, length), pad, jnp.int32)
    return _State(
        index=jnp.int32(0),
        cache=cache,
        newest_BW=jnp.full(shape_BW, bos, jnp.int32),
        prefixes_BWL=empty_BWL,
        # One hypothesis lives: W equal ones would fill the beam with copies.
        log_probs_BW=nothing_BW.at[:, 0].set(jnp.where(limits_B > 0, 0.0, -jnp.inf)),
        finished=Hypotheses(
            tokens=empty_BWL,
            lengths=jnp.zeros(shape_BW, jnp.int32),
            log_probs=nothing_BW,
            scores=nothing_BW,
        ),
    )


def _any_live(state: _State) -> Bool[Array, ""]:
    return jnp.any(state.log_probs_BW > -jnp.inf)


def _best_continuations(
    log_probs_BWC: Float[Array, "B W C"], ids_BWC: Int[Array, "B W C"]
) -> tuple[Float[Array, "B W"], Int[Array, "B W"], Int[Array, "B W"]]:
    """The W best of a sentence's W·C candidates: log-probabilities, parents and tokens."""
    batch, width, count = log_probs_BWC.shape
    log_probs_BW, flat_BW = jax.lax.top_k(log_probs_BWC.reshape(batch, -1), width)
    tokens_BW = jnp.take_along_axis(ids_BWC.reshape(batch, -1), flat_BW, axis=1)
    return log_probs_BW, flat_BW // count, tokens_BW


def _best_of(finished: Hypotheses, ended: Hypotheses) -> Hypotheses:
    """The W best of 2W; among equals, those that finished first."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), finished, ended)
    _, order_BW = jax.lax.top_k(both.scores, finished.scores.shape[1])

    def pick(leaf: Array) -> Array:
        index = order_BW.reshape(order_BW.shape + (1,) * (leaf.ndim - 2))
        return jnp.take_along_axis(leaf, index, axis=1)

    return jax.tree.map(pick, both)


def _best_reachable(
    log_probs_B: Float[Array, "B"],
    next_length: Int[Array, ""],
    limits_B: Int[Array, "B"],
    factors_L: Float[Array, "L"],
) -> Float[Array, "B"]:
    """The highest score that a live hypothesis can still finish with (see the module)."""
    return jnp.maximum(
        log_probs_B * factors_L[next_length - 1], log_probs_B * factors_L[limits_B - 1]
    )
