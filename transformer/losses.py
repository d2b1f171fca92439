"""The loss: cross-entropy with label smoothing, projected and summed chunk by chunk."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, PRNGKeyArray

from transformer.batch import Batch
from transformer.errors import UserError


@struct.dataclass
class LossSums:
    """Sums over target positions, float32 scalars. Means are taken once, over all of a batch."""

    loss: Float[Array, ""]  # label-smoothed cross-entropy (and z-loss), nats, weighted
    nll: Float[Array, ""]  # negative log-likelihood of the labels, nats, weighted
    correct: Float[Array, ""]  # weight of the positions whose most probable piece is the label
    weight: Float[Array, ""]  # of all positions

    @classmethod
    def zero(cls) -> "LossSums":
        zero = jnp.zeros((), jnp.float32)
        return cls(zero, zero, zero, zero)

    def __add__(self, other: "LossSums") -> "LossSums":
        return jax.tree.map(jnp.add, self, other)


def smoothed_cross_entropy(
    logits: Float[Array, "B T V"],
    labels: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    smoothing: float,
    z_loss: float = 0.0,
) -> LossSums:
    """Cross-entropy with a target of 1 - ε on the label and ε spread over all V (AIAYN §5.4).

    The label has its share of ε too, as in PyTorch's `CrossEntropyLoss(label_smoothing=ε)`; the
    target is 1 - ε + ε / V there. fairseq spreads ε over the other V - 1: its ε is ours times
    (V - 1) / V for the same target.

    Written with the log-normaliser, so that no log-probability of the whole vocabulary is stored:
    loss = logsumexp(logits) - (1 - ε) logits[label] - ε mean(logits). `z_loss` times the
    log-normaliser's square is added (Chowdhery et al. 2022, §5), which keeps it near 0.
    """
    logits_BTV = logits.astype(jnp.float32)
    normaliser_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    label_BT = jnp.take_along_axis(logits_BTV, labels[..., None], axis=-1)[..., 0]
    nll_BT = normaliser_BT - label_BT
    loss_BT = nll_BT
    if smoothing:
        loss_BT = nll_BT + smoothing * (label_BT - jnp.mean(logits_BTV, axis=-1))
    if z_loss:
        loss_BT = loss_BT + z_loss * jnp.square(normaliser_BT)
    correct_BT = (label_BT >= jnp.max(logits_BTV, axis=-1)).astype(jnp.float32)
    return LossSums(
        loss=jnp.sum(loss_BT * weights),
        nll=jnp.sum(nll_BT * weights),
        correct=jnp.sum(correct_BT * weights),
        weight=jnp.sum(weights),
    )


# Sums over positions, of logits, labels and weights: what may be computed chunk by chunk.
Loss = Callable[[Float[Array, "B T V"], Int[Array, "B T"], Float[Array, "B T"]], LossSums]
# The loss of each position, float32, of logits and labels: one of your own.
PositionLoss = Callable[[Float[Array, "B T V"], Int[Array, "B T"]], Float[Array, "B T"]]


def cross_entropy(smoothing: float = 0.0, z_loss: float = 0.0) -> Loss:
    """`smoothed_cross_entropy` of one smoothing and z-loss."""
    return functools.partial(smoothed_cross_entropy, smoothing=smoothing, z_loss=z_loss)


def loss_of_positions(loss: PositionLoss) -> Loss:
    """A loss of your own, weighted and summed; likelihood and accuracy stand beside it."""

    def sums(logits_BTV: Array, labels_BT: Array, weights_BT: Array) -> LossSums:
        logits_BTV = logits_BTV.astype(jnp.float32)
        loss_BT = jnp.asarray(loss(logits_BTV, labels_BT))
        if loss_BT.shape != labels_BT.shape or not jnp.issubdtype(loss_BT.dtype, jnp.floating):
            raise UserError(
                f"the loss gives {loss_BT.dtype}{list(loss_BT.shape)} for labels "
                f"{list(labels_BT.shape)}: give a floating-point number for each label"
            )
        total = jnp.sum(loss_BT * weights_BT)
        plain = smoothed_cross_entropy(logits_BTV, labels_BT, weights_BT, 0.0)
        return plain.replace(loss=total)  # pyright: ignore[reportAttributeAccessIssue]

    return sums


def chunked_loss(
    project: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    hidden: Float[Array, "B T D"],
    labels: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    loss: Loss,
    *,
    chunks: int,
    shards: int = 1,
) -> LossSums:
    """`loss(project(hidden), labels, weights)` without ever holding all B·T·V logits.

    The target length is cut in `chunks` pieces (fewer, down to half, where those divide it; else
    it is padded with weight 0); each is projected, summed, differentiated and forgotten: kept for
    the backward pass are its gradients, and nothing is projected twice. Where the length is split
    over `shards` devices, a piece is an equal part of each device's positions, so that all of them
    work on it.
    """
    B, T, _ = hidden.shape
    count = _pieces(-(-T // shards), chunks)
    padding = -T % (count * shards)

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
        x = x.reshape(B, shards, count, -1, *x.shape[2:])
        x = jnp.moveaxis(x, 2, 0)
        return x.reshape(count, B, -1, *x.shape[4:])

    pieces = split(hidden), split(labels), split(weights)
    project, held = jax.closure_convert(project, jax.tree.map(lambda x: x[0], pieces[0]))

    def piece(held: Any, chunk: _Chunk) -> LossSums:
        hidden_BCD, labels_BC, weights_BC = chunk
        logits_BCV = project(hidden_BCD, *held)
        return loss(logits_BCV, labels_BC, weights_BC)

    return _sum_of_pieces(piece, held, pieces)


_Chunk = tuple[Array, Array, Array]  # hidden states, labels and weights


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum_of_pieces(piece: Callable[[Any, _Chunk], LossSums], held: Any, chunks: _Chunk) -> LossSums:
    """Σ piece(held, chunk), whose derivative is taken with each piece while its logits are there.

    Only `loss` has one, by `held` (what the projection closes over) and by the hidden states.
    """

    def add(sums: LossSums, chunk: _Chunk) -> tuple[LossSums, None]:
        return sums + piece(held, chunk), None

    return jax.lax.scan(add, LossSums.zero(), chunks)[0]


def _forward(piece: Callable[[Any, _Chunk], LossSums], held: Any, chunks: _Chunk) -> Any:
    def add(carry: tuple[LossSums, Any], chunk: _Chunk) -> Any:
        (sums, dheld), (hidden_BCD, labels_BC, weights_BC) = carry, chunk

        def loss(held: Any, hidden_BCD: Array) -> tuple[Array, LossSums]:
            part = piece(held, (hidden_BCD, labels_BC, weights_BC))
            return part.loss, part

        _, pull, part = jax.vjp(loss, held, hidden_BCD, has_aux=True)
        more, dhidden_BCD = pull(jnp.ones((), jnp.float32))
        return (sums + part, jax.tree.map(jnp.add, dheld, more)), dhidden_BCD

    start = LossSums.zero(), jax.tree.map(jnp.zeros_like, held)
    (sums, dheld), dhidden = jax.lax.scan(add, start, chunks)
    return sums, (dheld, dhidden)


def _backward(_: Any, saved: tuple[Any, Array], d: LossSums) -> tuple[Any, Any]:
    dheld, dhidden = jax.tree.map(lambda x: x * d.loss.astype(x.dtype), saved)
    return dheld, (dhidden, None, None)


_sum_of_pieces.defvjp(_forward, _backward)


def _pieces(length: int, chunks: int) -> int:
    """How many pieces: the most from `chunks` down to half of it that divide the length, if any."""
    most = min(chunks, length)
    divisors = (count for count in range(most, chunks // 2, -1) if length % count == 0)
    return next(divisors, most)


def batch_loss(
    apply: Callable[..., Any],
    batch: Batch,
    loss: Loss,
    *,
    chunks: int,
    shards: int = 1,
    key: PRNGKeyArray | None = None,
) -> LossSums:
    """A model's loss on a batch in teacher forcing, summed over its target tokens.

    Args:
        apply: `functools.partial(model.apply, variables)` of any model family.
        batch: B rows.
        loss: of logits, such as `cross_entropy(smoothing=0.1)`.
        chunks, shards: see `chunked_loss`.
        key: dropout is on where there is one.
    """

    def rngs(number: int) -> dict[str, Array] | None:
        return None if key is None else {"dropout": jax.random.fold_in(key, number)}

    memory = apply(batch.source, method="encode", rngs=rngs(0))
    return chunked_loss(
        lambda hidden_BCD: apply(hidden_BCD, method="logits"),
        apply(batch.target, memory, method="decode", rngs=rngs(1)),
        batch.target.labels,
        batch.target.weights,
        loss,
        chunks=chunks,
        shards=shards,
    )
