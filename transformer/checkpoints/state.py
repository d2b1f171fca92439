"""What a run carries on its devices."""

from typing import Any

from flax import struct

from transformer.models.parameters import Params


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
    loss_baseline: Any  # divergence.LossBaseline: what a step's loss is judged by
