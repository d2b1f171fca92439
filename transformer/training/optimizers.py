"""Optimizers, gradient clipping and learning-rate schedules: the paper's, and all of Optax."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax
import optax.contrib

from transformer.dotted import is_dotted, resolve
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
    return _call(factory, options, "optimizer.schedule_options", name)


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
    if factory is None or "learning_rate" not in _parameters(factory):
        if is_dotted(name):
            raise UserError(f"optimizer.name is {name!r}, which takes no learning_rate")
        has = [n for n in dir(optax) if "learning_rate" in _parameters(getattr(optax, n))]
        raise UserError(f"optimizer.name is {name!r}{_nearest(name, has)}")
    if SCHEDULED in options:
        raise UserError(
            "optimizer.options.learning_rate: the schedule gives it; set optimizer.schedule_options"
        )
    optimizer = _call(factory, {**options, SCHEDULED: schedule}, "optimizer.options", name)
    if clip_norm > 0.0:
        return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    return optimizer


def _parameters(factory: Any) -> Mapping[str, inspect.Parameter]:
    if not inspect.isfunction(factory):
        return {}
    return inspect.signature(factory).parameters


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3)
    return f", which does not exist: did you mean {' or '.join(near or names[:3])}?"


def _call(factory: Callable, options: Mapping[str, Any], section: str, name: str) -> Any:
    takes = _parameters(factory)
    unknown = [key for key in options if key not in takes]
    named = [key for key in options if key != SCHEDULED]
    missing = [k for k, p in takes.items() if p.default is p.empty and k not in options]
    if unknown or missing:
        wrong = [f"has {', '.join(unknown)}, which {name} does not take"] if unknown else []
        wrong += [f"lacks {', '.join(missing)}, which {name} needs"] if missing else []
        usable = [f"'{key}': {options[key]!r}" for key in named if key in takes]
        whole = ", ".join([*usable, *(f"'{key}': ..." for key in missing)])
        raise UserError(
            f"{section} {' and '.join(wrong)}: {name} takes "
            f"{', '.join(key for key in takes if key != SCHEDULED)}. Keys that you did not give "
            "are the experiment file's, made for what it names; replace the section as a whole, "
            f'in the file or by --config.{section}="{{{whole}}}"'
        )
    try:
        return factory(**options)
    except (TypeError, ValueError, AttributeError) as error:
        reason, usable = " ".join(str(error).split()), {key: options[key] for key in named}
        raise UserError(f"{section}: {name} refuses {usable}: {reason}") from error
