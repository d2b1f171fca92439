"""The base model of "Attention Is All You Need": what every experiment starts from.

Every key, with its default, unit, meaning and source, is declared in `transformer/config`. An
experiment file changes what differs:

    from experiments import base

    def get_config(variant: str = ""):
        config = base.get_config()
        config.model.d_model = 256
        return base.with_variants(config, variant)

`--config=experiments/X.py:smoke` shrinks any experiment to a size that a CPU trains in seconds.
Outside this repository, `transformer.config.base` is the same function.
"""

from transformer.config import base as get_config
from transformer.config import smoke, with_variants

__all__ = ["get_config", "smoke", "with_variants"]
