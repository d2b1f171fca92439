"""What flows from the data to a model: token ids with their positions and segments.

A segment is a sentence within a row: 1, 2, 3 ... in packed rows, all 1 in padded ones; 0 marks
padding. Segments, not token ids, say what padding is; positions count from 0 within a segment.
(*B: an accumulated batch has an axis of microbatches before its rows.)

One packed row, two sentences (source `a b </s>`, `c </s>`; target `x </s>`, `y z </s>`):

    source.ids       a   b  </s>  c  </s>  .   .   .      target.ids       <s>  x  <s>   y   z    .
    source.positions 0   1   2    0   1    0   0   0      target.labels     x  </s> y    z  </s>  .
    source.segments  1   1   1    2   2    0   0   0      target.positions  0   1   0    1   2    0
                                                          target.segments   1   1   2    2   2    0
                                                          target.weights    1   1   1    1   1    0
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int
from numpy import ndarray

if TYPE_CHECKING:
    AnyArray = Any  # a type checker would not let NumPy's pass for JAX's
else:
    AnyArray = Array | ndarray

PAD, BOS, EOS = 0, 1, 2  # ids in every vocabulary: padding, beginning and end of a sentence
# One sentence a row; in an array 0 is padding.
Ids = Sequence[Sequence[int]] | Int[AnyArray, "B T"]


@struct.dataclass
class Source:
    """What the encoder reads. All int32; `Batch.source`, or one sentence a row when translating."""

    ids: Int[AnyArray, "*B S"]
    positions: Int[AnyArray, "*B S"]
    segments: Int[AnyArray, "*B S"]

    @classmethod
    def of(cls, ids: Ids, shape: tuple[int, int] | None = None) -> Self:
        """Makes a source of one sentence a row.

        Args:
            ids: lists of ids, each with its `</s>`; or an array [B, S], PAD behind each sentence.
            shape: (B, S) of the result, where lists are to be padded to more than the longest.
        """
        ids_BS, segments_BS = _padded(ids, shape)
        return cls(ids_BS, _positions(segments_BS), segments_BS)


@struct.dataclass
class Target:
    """What the decoder is fed (`ids`, shifted right) and asked for (`labels`)."""

    ids: Int[AnyArray, "*B T"]
    positions: Int[AnyArray, "*B T"]
    segments: Int[AnyArray, "*B T"]
    labels: Int[AnyArray, "*B T"]
    weights: Float[AnyArray, "*B T"]  # float32; what a label counts in the loss: 0 for padding

    @classmethod
    def of(cls, ids: Ids, shape: tuple[int, int] | None = None) -> Self:
        """Makes a target, for teacher forcing, of one sentence a row; see `Source.of`.

        The ids are its labels; the decoder is fed BOS and all of them but the last.
        """
        labels_BT, segments_BT = _padded(ids, shape)
        xp = np if isinstance(labels_BT, ndarray) else _jax_numpy()
        bos_B1 = xp.full_like(labels_BT[:, :1], BOS)
        fed_BT = xp.concatenate([bos_B1, labels_BT[:, :-1]], axis=1) * segments_BT
        weights_BT = segments_BT.astype(np.float32)
        return cls(fed_BT, _positions(segments_BT), segments_BT, labels_BT, weights_BT)


@struct.dataclass
class Batch:
    """One step's examples: `B` rows of source and target, aligned segment by segment."""

    source: Source
    target: Target

    @classmethod
    def of(cls, source_ids: Ids, target_ids: Ids) -> Self:
        """Makes a batch of one pair a row; see `Source.of` and `Target.of`."""
        return cls(Source.of(source_ids), Target.of(target_ids))


def _padded(ids: Any, shape: tuple[int, int] | None) -> tuple[Any, Any]:
    """Ids [B, T] and their segments, 1 and 0, int32."""
    if hasattr(ids, "ndim"):
        ids_BT = ids.astype(np.int32)
        return ids_BT, (ids_BT != PAD).astype(np.int32)
    shape = shape or (len(ids), max(map(len, ids), default=0))
    ids_BT, segments_BT = np.full(shape, PAD, np.int32), np.zeros(shape, np.int32)
    for row, sentence in enumerate(ids):
        ids_BT[row, : len(sentence)] = sentence
        segments_BT[row, : len(sentence)] = 1
    return ids_BT, segments_BT


def _positions(segments_BT: Any) -> Any:
    """Positions of rows that hold one sentence from their beginning on."""
    return np.arange(segments_BT.shape[1], dtype=np.int32)[None] * segments_BT


def _jax_numpy() -> Any:
    import jax.numpy

    return jax.numpy
