"""What a run carries on its devices."""

from typing import Any

import jax.numpy as jnp
from flax import struct

from transformer.models.parameters import Params


@struct.dataclass
class LossBaseline:
    """What a step's loss is judged by: its running mean over the good steps so far."""

    loss: Any  # float32 []
    good_steps: Any  # int32 []; good steps so far
    consecutive_bad: Any  # int32 []; bad steps in a row, up to here

    @classmethod
    def start(cls) -> "LossBaseline":
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


@struct.dataclass
class TrainState:
    """All that training carries from one step to the next, and all that a checkpoint holds.

    Trees of this shape also hold shardings, or ShapeDtypeStructs, in place of arrays.
    """

    step: Any  # int32 []; updates done
    seed: Any  # int32 []; the experiment's: dropout draws from (seed, step)
    params: Params  # float32
    opt_state: Any  # Optax's
    ema: Params  # float32, as params; () where training.ema_decay is 0
    loss_baseline: Any  # LossBaseline
