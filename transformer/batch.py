"""What flows from the data to a model: token ids with their positions and segments.

A segment is a sentence within a row: 1, 2, 3 ... in packed rows, all 1 in padded ones; 0 marks
padding. Segments, not token ids, say what padding is; positions count from 0 within a segment.
(*B: an accumulated batch has an axis of parts before its rows.)

One packed row, two sentences (source `a b </s>`, `c </s>`; target `x </s>`, `y z </s>`):

    source.ids       a   b  </s>  c  </s>  .   .   .      target.ids       <s>  x  <s>   y   z    .
    source.positions 0   1   2    0   1    0   0   0      target.labels     x  </s> y    z  </s>  .
    source.segments  1   1   1    2   2    0   0   0      target.positions  0   1   0    1   2    0
                                                          target.segments   1   1   2    2   2    0
                                                          target.weights    1   1   1    1   1    0
"""

from typing import TYPE_CHECKING, Any

from flax import struct
from jaxtyping import Array, Float, Int
from numpy import ndarray

if TYPE_CHECKING:
    AnyArray = Any  # a type checker would not let NumPy's pass for JAX's
else:
    AnyArray = Array | ndarray


@struct.dataclass
class Source:
    """What the encoder reads. All int32; `Batch.source`, or one sentence a row when translating."""

    ids: Int[AnyArray, "*B S"]
    positions: Int[AnyArray, "*B S"]
    segments: Int[AnyArray, "*B S"]


@struct.dataclass
class Target:
    """What the decoder is fed (`ids`, shifted right) and asked for (`labels`)."""

    ids: Int[AnyArray, "*B T"]
    positions: Int[AnyArray, "*B T"]
    segments: Int[AnyArray, "*B T"]
    labels: Int[AnyArray, "*B T"]
    weights: Float[AnyArray, "*B T"]  # float32; what a label counts in the loss: 0 for padding


@struct.dataclass
class Batch:
    """One step's examples: `B` rows of source and target, aligned segment by segment."""

    source: Source
    target: Target
