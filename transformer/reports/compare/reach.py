"""How far back a model's gradients reach: the norm of ∂ logits_t / ∂ input_(t-k) against k.

Of encoder and decoder as one sequence: t is the first target word, whose logits are asked for when
the whole source has been read; k = 0 is the source's last token. Inputs are the embeddings, at
which both norms and their comparison between families make sense.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from transformer.batch import EOS, Source, Target
from transformer.config import RecallConfig
from transformer.data import recall
from transformer.experiment import Experiment
from transformer.models.embedding import Embedding

# Gradients are pulled back from logits' cotangents of this size: float32 then holds norms down to
# SMALLEST, below which they count as 0.
SCALE = 1e30
SMALLEST = 1e-67


def recall_sources(experiment: Experiment, count: int) -> Source:
    """Development sentences over the longest distance, which all have the same length."""
    longest = max(experiment.config.data.recall.distances)
    texts = [pair.source for pair in experiment.corpus.pairs("dev")]
    far = [text for text in texts if recall.distance(text) == longest][:count]
    return Source.of([[*ids, EOS] for ids in experiment.tokenizer.encode(far)])


def reach(
    experiment: Experiment, params: Any, source: Source, *, probes: int, seed: int
) -> Float[np.ndarray, " S"]:
    """‖∂ logits_t / ∂ input_(t-k)‖ (Frobenius) for k = 0, 1 ... S - 1: root mean square over rows.

    Estimated from random projections v of the logits: E ‖Jᵀv‖² = ‖J‖² for v ~ N(0, I)
    (Hutchinson 1989). Below `SMALLEST` they are 0.

    Args:
        experiment: whose model is looked at.
        params: its parameters.
        source: rows without padding, NumPy arrays [B, S].
        probes: projections of each row.
        seed: of the projections.
    """
    model, layout = experiment.model, experiment.sentence_layout.whole("batch")
    rows, _ = np.shape(source.ids)
    target = Target.of([[EOS]] * rows)  # fed BOS alone

    def norms(params: Any, source: Source, target: Target) -> Float[Array, "P B S"]:
        def logits(nudge_BSD: Array) -> Float[Array, "B V"]:
            def nudged(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
                out = call(*args, **kwargs)
                is_input = isinstance(context.module, Embedding) and context.method_name == "source"
                return out + nudge_BSD.astype(out.dtype) if is_input else out

            with nn.intercept_methods(nudged):
                memory = model.apply({"params": params}, source, method="encode")
            hidden = model.apply({"params": params}, target, memory, method="decode")
            return model.apply({"params": params}, hidden, method="logits")[:, 0]  # pyright: ignore

        nudge = jnp.zeros((*source.ids.shape, model.config.d_model))
        shape, pull = jax.vjp(logits, nudge)

        def probe(key: Array) -> Float[Array, "B S"]:
            (g_BSD,) = pull(SCALE * jax.random.normal(key, shape.shape, shape.dtype))
            # By the largest entry, as squares of small ones would be 0 and of large ones infinite.
            largest_BS1 = jnp.max(jnp.abs(g_BSD), axis=-1, keepdims=True)
            relative_BSD = g_BSD / jnp.where(largest_BS1 > 0.0, largest_BS1, 1.0)
            return largest_BS1[..., 0] * jnp.sqrt(jnp.sum(relative_BSD**2, axis=-1))

        return jax.lax.map(probe, jax.random.split(jax.random.key(seed), probes))

    placed = layout.place((source, target))
    norms_PBS = np.asarray(layout.jit(norms)(params, *placed), np.float64) / SCALE
    return np.sqrt((norms_PBS**2).mean(axis=(0, 1)))[::-1]


def faded(norms: Sequence[float], config: RecallConfig) -> float:
    """Orders of magnitude between the nearest blank and what is to be remembered.

    At most what lies between the former and `SMALLEST`.

    Args:
        norms: of `reach`, over the longest distance: k = 0 is </s>, then (associative) the key that
            is asked for, the blanks, and the items, the last one first.
        config: of the task.
    """
    is_associative = config.task == "associative"
    near, items = (2, 2 * config.item_count) if is_associative else (1, config.item_count)
    first = near + max(config.distances)
    far = math.sqrt(sum(norm**2 for norm in norms[first : first + items]) / items)
    return math.log10(max(norms[near], SMALLEST)) - math.log10(max(far, SMALLEST))
