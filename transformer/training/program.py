"""Builds a jitted training step of a configuration: the one way there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optax

from transformer.config import Config
from transformer.losses import Loss
from transformer.models import Seq2Seq
from transformer.sharding import Layout
from transformer.training.optimizers import build_optimizer, build_schedule
from transformer.training.step import StateFactory, make_train_step


@dataclass(frozen=True)
class TrainProgram:
    """What trains a model on a mesh.

    Attributes:
        schedule: the learning rate of update 0, 1, 2 ...
        factory: makes the first state, and says what any state looks like.
        step: jitted, (state, batch) -> (state, metrics); it takes the state's memory over.
    """

    schedule: optax.Schedule
    factory: StateFactory
    step: Callable[..., Any]


def build_program(
    config: Config,
    model: Seq2Seq,
    layout: Layout,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
) -> TrainProgram:
    """Builds an experiment's training step; compiles nothing yet.

    Args:
        optimizer: in place of the configured one.
        loss: in place of the configured cross-entropy.

    Raises:
        UserError: there is no such optimizer or schedule, it does not take these options, or the
            mesh does not divide the model.
    """
    schedule = build_schedule(config.optimizer.schedule, config.optimizer.schedule_options)
    if optimizer is None:
        optimizer = build_optimizer(
            config.optimizer.name, config.optimizer.options, schedule, config.training.clip_norm
        )
    factory = StateFactory(model, optimizer, layout, config.training)
    step = layout.jit(
        make_train_step(model, optimizer, schedule, config.training, config.divergence, loss),
        donate_argnums=0,
        out_shardings=(factory.shardings, layout.replicated),
    )
    return TrainProgram(schedule, factory, step)
