"""Optimizers, gradient clipping and learning-rate schedules: the paper's, and all of Optax."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
import optax.contrib

from transformer.dotted import construct, is_dotted, parameters_of, resolve
from transformer.errors import UserError


def rsqrt(scale: float, warmup_steps: int) -> optax.Schedule:
    """scale · min(n^-0.5, n · warmup^-1.5) for update n = 1, 2 ... (AIAYN §5.3, Eq. 3; "Noam").

    The paper's scale is d_model^-0.5. The peak, at the end of warm-up, is scale · warmup^-0.5.
    """
    if warmup_steps < 1:
        raise UserError(
            f"optimizer.schedule_options.warmup_steps is {warmup_steps}; it must be above 0"
        )

    def schedule(count: Any) -> Any:
        n = jnp.asarray(count, jnp.float32) + 1.0
        return scale * jnp.minimum(n**-0.5, n * warmup_steps**-1.5)

    return schedule


SCHEDULED = "learning_rate"  # an option of optimizers that the schedule gives
SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "rsqrt": rsqrt,
    "exponential_decay": optax.exponential_decay,  # which Optax does not call a schedule
}


def build_schedule(name: str, options: Mapping[str, Any]) -> optax.Schedule:
    """The learning rate of update 0, 1, 2 ...: of `SCHEDULES`, Optax (`NAME_schedule`), or yours.

    Raises:
        UserError: no such schedule, or options that it does not take.
    """
    optax_name = name if name.endswith("_schedule") else f"{name}_schedule"
    if is_dotted(name):
        factory = resolve(name, "optimizer.schedule")
    else:
        factory = SCHEDULES.get(name) or getattr(optax, optax_name, None)
    if factory is None:
        has = [*SCHEDULES, *(n for n in dir(optax) if n.endswith("_schedule"))]
        raise UserError(f"optimizer.schedule is {name!r}{_nearest(name, has)}")
    return construct(factory, options, "optimizer.schedule_options", name)


def build_optimizer(
    name: str, options: Mapping[str, Any], schedule: optax.Schedule, clip_norm: float
) -> optax.GradientTransformation:
    """The optimizer of that name, on a schedule, behind clipping of the global gradient norm.

    Args:
        name: of optax or optax.contrib; or "module:function" of yours, which takes a learning_rate.

    Raises:
        UserError: there is no such optimizer, or it does not take these options.
    """
    if is_dotted(name):
        factory = resolve(name, "optimizer.name")
    else:
        factory = getattr(optax, name, None) or getattr(optax.contrib, name, None)
    if factory is None or "learning_rate" not in parameters_of(factory):
        if is_dotted(name):
            raise UserError(f"optimizer.name is {name!r}, which takes no learning_rate")
        has = [n for n in dir(optax) if "learning_rate" in parameters_of(getattr(optax, n))]
        raise UserError(f"optimizer.name is {name!r}{_nearest(name, has)}")
    if SCHEDULED in options:
        raise UserError(
            "optimizer.options.learning_rate: the schedule gives it; set optimizer.schedule_options"
        )
    optimizer = construct(factory, options, "optimizer.options", name, given={SCHEDULED: schedule})
    if clip_norm > 0.0:
        return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    return optimizer


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
    return f", which does not exist: did you mean {' or '.join(near or names[:3])}?"
