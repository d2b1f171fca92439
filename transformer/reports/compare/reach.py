"""How far back a model's gradients reach: the norm of ∂ logits_t / ∂ input_(t-k) against k.

Of encoder and decoder as one sequence: t is the first target word, whose logits are asked for when
the whole source has been read; k = 0 is the source's last token. Inputs are the embeddings, at
which both norms and their comparison between families make sense.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from transformer.batch import Source, Target
from transformer.data import BOS, EOS
from transformer.experiment import Experiment
from transformer.models.layers import Embedding


def recall_sources(experiment: Experiment, count: int) -> Source:
    """Development sentences over the longest distance, which all have the same length."""
    longest = max(experiment.config.data.recall.distances)
    ids = [
        [*sentence, EOS]
        for sentence in experiment.tokenizer.encode(
            [p.source for p in experiment.corpus.pairs("dev") if p.source.count(".") == longest]
        )
    ]
    ids = np.asarray(ids[:count], np.int32)
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    return Source(ids, positions, np.ones_like(ids))


def reach(
    experiment: Experiment, params: Any, source: Source, *, probes: int, seed: int
) -> Float[np.ndarray, " S"]:
    """‖∂ logits_t / ∂ input_(t-k)‖ (Frobenius) for k = 0, 1 ... S - 1: root mean square over rows.

    Estimated from random projections v of the logits: E ‖Jᵀv‖² = ‖J‖² for v ~ N(0, I)
    (Hutchinson 1989).

    Args:
        experiment: whose model is looked at.
        params: its parameters.
        source: rows without padding, NumPy arrays [B, S].
        probes: projections of each row.
        seed: of the projections.
    """
    model, layout = experiment.model, experiment.sentence_layout.whole("batch")
    rows, _ = np.shape(source.ids)
    first = np.zeros((rows, 1), np.int32)
    ones = np.ones((rows, 1), np.int32)
    target = Target(first + BOS, first, ones, first, ones.astype(np.float32))

    def squares(params: Any, source: Source, target: Target) -> Float[Array, "B S"]:
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

        def probe(total: Array, key: Array) -> tuple[Array, None]:
            (gradient_BSD,) = pull(jax.random.normal(key, shape.shape, shape.dtype))
            return total + jnp.sum(gradient_BSD**2, axis=-1), None

        keys = jax.random.split(jax.random.key(seed), probes)
        total, _ = jax.lax.scan(probe, jnp.zeros(source.ids.shape), keys)
        return total / probes

    placed = layout.place((source, target))
    squares_BS = np.asarray(layout.jit(squares)(params, *placed), np.float64)
    return np.sqrt(squares_BS.mean(axis=0))[::-1]
