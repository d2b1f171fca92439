"""One training step as a pure function: (state, batch) -> (state, metrics)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from transformer import rng
from transformer.batch import Batch
from transformer.checkpoints.state import TrainState
from transformer.config import DivergenceConfig, TrainingConfig
from transformer.losses import Loss, LossSums, batch_loss, cross_entropy
from transformer.models import Seq2Seq, parameters
from transformer.models.embedding import gather_tables
from transformer.models.parameters import Params
from transformer.models.precision import compute_dtype
from transformer.rng import Stream
from transformer.sharding import Layout, current
from transformer.training.divergence import LossBaseline, Trouble, judge


@struct.dataclass
class StepMetrics:
    """What one step measured, float32 scalars; means are over the batch's target tokens."""

    loss: Float[Array, ""]  # label-smoothed cross-entropy, nats a token
    nll: Float[Array, ""]  # negative log-likelihood, nats a token
    accuracy: Float[Array, ""]  # share of labels that were the most probable piece
    gradient_norm: Float[Array, ""]  # global, before clipping
    learning_rate: Float[Array, ""]
    trouble: Int[Array, ""]  # int32: divergence.Trouble
    consecutive_bad: Int[Array, ""]  # int32: so many bad steps up to this one

    def measured(self) -> dict[str, Array]:
        """What is worth a curve."""
        judged = ("trouble", "consecutive_bad")
        return {name: value for name, value in vars(self).items() if name not in judged}


def gradients(
    model: Seq2Seq,
    state: TrainState,
    batch: Batch,
    config: TrainingConfig,
    loss: Loss | None = None,
) -> tuple[Params, LossSums]:
    """d(mean loss)/d(params) over the whole batch, and the sums it came from.

    Gradient accumulation: the batch is cut in equal microbatches, computed one after another; the
    mean is taken over all of them at the end, so the result is that of the batch in one piece
    (dropout's draws apart).
    """

    def of_microbatch(microbatch: Batch, number: Any) -> tuple[Params, LossSums]:
        key = rng.key(state.seed, Stream.DROPOUT, state.step, number)

        def total(params: Params) -> tuple[Array, LossSums]:
            params = gather_tables(params, compute_dtype(model.config))
            sums = batch_loss(
                functools.partial(model.apply, {"params": params}),
                microbatch,
                loss or cross_entropy(config.label_smoothing, config.z_loss),
                chunks=config.loss_chunks,
                shards=current().split("length"),
                key=key,
            )
            return sums.loss, sums

        grads, sums = jax.grad(total, has_aux=True)(state.params)
        return grads, sums

    if config.accumulate == 1:
        grads, sums = of_microbatch(batch, 0)
    else:
        microbatches = jax.tree.map(lambda x: _cut(x, config.accumulate), batch)

        def add(total: Any, numbered: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_microbatch(*numbered)), None

        zero = (jax.tree.map(jnp.zeros_like, state.params), LossSums.zero())
        (grads, sums), _ = jax.lax.scan(add, zero, (microbatches, jnp.arange(config.accumulate)))
    scale = 1.0 / jnp.maximum(sums.weight, 1.0)
    return jax.tree.map(lambda g: g * scale, grads), sums


def _cut(x_B: Array, count: int) -> Array:
    """[B, ...] → [count, B / count, ...]; each has rows of every device's share."""
    return jnp.moveaxis(x_B.reshape(x_B.shape[0] // count, count, *x_B.shape[1:]), 1, 0)


def make_train_step(
    model: Seq2Seq,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    config: TrainingConfig,
    divergence: DivergenceConfig,
    loss: Loss | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]:
    """The step as a function to jit: gradients, one update, and the moving average if there is one.

    `loss` stands in place of the configured cross-entropy.

    With divergence.action "skip" a bad step counts, and leaves all else as it was.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        grads, sums = gradients(model, state, batch, config, loss)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        weight = jnp.maximum(sums.weight, 1.0)
        mean_loss, norm = sums.loss / weight, optax.tree.norm(grads)
        norms = jnp.stack([norm, optax.tree.norm(updates)])
        trouble, baseline = judge(state.loss_baseline, mean_loss, norms, divergence)
        # A skipped update does not move the optimizer's count, nor its schedule.
        updates_done = state.loss_baseline.good_steps if divergence.action == "skip" else state.step
        metrics = StepMetrics(
            loss=mean_loss,
            nll=sums.nll / weight,
            accuracy=sums.correct / weight,
            gradient_norm=norm,
            learning_rate=jnp.asarray(schedule(updates_done), jnp.float32),
            trouble=trouble,
            consecutive_bad=baseline.consecutive_bad,
        )
        decay = config.ema_decay
        ema = (
            jax.tree.map(lambda e, p: decay * e + (1.0 - decay) * p, state.ema, params)
            if decay
            else ()
        )
        after = TrainState(state.step + 1, state.seed, params, opt_state, ema, baseline)
        if divergence.action == "skip":
            before = dataclasses.replace(state, step=after.step, loss_baseline=baseline)
            good = trouble == Trouble.NONE
            after = jax.tree.map(lambda new, old: jnp.where(good, new, old), after, before)
        return after, metrics

    return train_step


class StateFactory:
    """Makes a run's first state on its mesh, and says what any state of it looks like.

    Attributes:
        abstract: a TrainState of ShapeDtypeStructs with shardings, for restoring a checkpoint.
        shardings: the same tree of shardings.
    """

    def __init__(
        self,
        model: Seq2Seq,
        optimizer: optax.GradientTransformation,
        layout: Layout,
        config: TrainingConfig,
    ):
        self._model, self._optimizer, self._layout = model, optimizer, layout
        self._ema = config.ema_decay > 0.0
        like = parameters.abstract(model, layout)
        params = jax.tree.map(lambda leaf: leaf.sharding, like)
        shapes = jax.eval_shape(self._around, like, 0)
        self.shardings = TrainState(
            step=layout.replicated,
            seed=layout.replicated,
            params=params,
            opt_state=_like_params(optimizer, shapes, params, layout),
            ema=params if self._ema else (),
            loss_baseline=jax.tree.map(lambda _: layout.replicated, shapes.loss_baseline),
        )
        self.abstract = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, self.shardings
        )

    def create(self, seed: int) -> TrainState:
        """The state before the first step: the same bits on every mesh."""
        create = self._layout.jit(self._state, out_shardings=self.shardings)
        return create(np.int32(seed))  # NumPy's: one of JAX's would be a program of its own

    def _state(self, seed: Any) -> TrainState:
        return self._around(nn.unbox(parameters.boxed(self._model, self._layout, seed)), seed)

    def _around(self, params: Params, seed: Any) -> TrainState:
        """The first state that holds these parameters."""
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            seed=jnp.asarray(seed, jnp.int32),
            params=params,
            opt_state=self._optimizer.init(params),
            ema=params if self._ema else (),
            loss_baseline=LossBaseline.start(),
        )


def _like_params(
    optimizer: optax.GradientTransformation, shapes: TrainState, params: Any, layout: Layout
) -> Any:
    """Shardings for optimizer state: what is shaped like a parameter is split as it is."""
    states = []

    def map_params() -> None:
        state = optax.tree.map_params(
            optimizer,
            lambda leaf, sharding, p: sharding if leaf.shape == p.shape else layout.replicated,
            shapes.opt_state,
            params,
            shapes.params,
            transform_non_params=lambda _: layout.replicated,
        )
        states.append(state)

    # Optax makes a state of placeholders for it: traced, its counts are no program of their own.
    jax.eval_shape(map_params)
    return states[0]
