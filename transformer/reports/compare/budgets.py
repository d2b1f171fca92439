"""What "the same budget" means, and experiments changed so that they keep to it.

    parameters   the width that a family has to spare (a Transformer's d_ff, a recurrent d_hidden)
                 is changed until it has as many parameters as the reference; as many updates
    flops        updates until as many FLOPs are spent (the formula's, `flops_per_token`)
    minutes      updates that fit into so many minutes at the speed measured here, and stopped then
    tokens       the same batches: as many updates as the reference

Learning-rate schedules that end (`decay_steps`) end with the training.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache

from transformer.config import Config
from transformer.models import build_model, parameters

MULTIPLE = 8  # widths are multiples of this
Change = Callable[[Config], Config]


def with_equal_parameters(group: Mapping[str, Config], reference: str) -> dict[str, Config]:
    """A group of experiments, each as near as its widths allow to the reference's parameters."""
    total = count(group[reference])
    return {
        name: config if name == reference else with_parameters(config, total)
        for name, config in group.items()
    }


def with_equal_updates(
    group: Mapping[str, Config],
    reference: str,
    budget: str,
    *,
    length: int,
    minutes: float,
    speeds: Mapping[str, float],
) -> dict[str, Config]:
    """A group of experiments, each with the updates that keep to the reference's budget.

    Args:
        group: by name.
        reference: the one that says how much there is to spend.
        budget: flops or minutes; parameters and tokens are the same batches.
        length: tokens of the sentences whose FLOPs are counted.
        minutes: of training; read by "minutes" alone.
        speeds: training tokens a second of each, likewise.
    """
    steps = group[reference].training.steps
    own_flops = _flops(group[reference], length)

    def change(name: str, config: Config) -> Config:
        if budget == "flops":
            return with_steps(config, round(steps * own_flops / _flops(config, length)))
        if budget == "minutes":
            tokens = 60.0 * minutes * speeds[name]
            changed = with_steps(config, round(tokens / config.data.tokens_per_batch))
            training = dataclasses.replace(changed.training, minutes=minutes)
            return dataclasses.replace(changed, training=training)
        return with_steps(config, steps)

    return {name: change(name, config) for name, config in group.items()}


def with_steps(config: Config, steps: int) -> Config:
    """The experiment with another number of updates, and a schedule that ends with them."""
    steps = max(1, steps)
    options = dict(config.optimizer.schedule_options)
    if "decay_steps" in options:
        scale = steps / config.training.steps
        options["decay_steps"] = max(2, round(options["decay_steps"] * scale))
        if options.get("warmup_steps", 0) >= options["decay_steps"]:
            options["warmup_steps"] = options["decay_steps"] // 2
    return dataclasses.replace(
        config,
        training=dataclasses.replace(config.training, steps=steps, minutes=0.0),
        optimizer=dataclasses.replace(config.optimizer, schedule_options=options),
    )


def with_parameters(config: Config, total: int) -> Config:
    """The experiment with the width that brings it nearest to `total` parameters."""

    def sized(width: int) -> Config:
        model = config.model
        if model.family == "transformer":
            model = dataclasses.replace(model, d_ff=width)
        else:
            recurrent = dataclasses.replace(model.recurrent, d_hidden=width)
            model = dataclasses.replace(model, recurrent=recurrent)
        return dataclasses.replace(config, model=model)

    low, high = 1, 2
    while count(sized(MULTIPLE * high)) < total:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(sized(MULTIPLE * middle)) < total else (low, middle)
    return min(
        (sized(MULTIPLE * width) for width in (low, high)),
        key=lambda candidate: abs(count(candidate) - total),
    )


def count(config: Config) -> int:
    """Parameters, all of them."""
    return _count(config.model)


@cache
def _count(model: object) -> int:
    return parameters.count(build_model(model), length=1).total  # pyright: ignore


def _flops(config: Config, length: int) -> float:
    return type(build_model(config.model)).flops_per_token(config.model, length)
