"""Which pairs share a packed row: a vectorised best fit.

In integers and in corpus order, so that every host packs alike.
"""

import numpy as np
from jaxtyping import Bool, Int

WINDOW = 64  # rows open at a time
LANE = 2048  # pairs packed in sequence; lanes of these run side by side


def pack(lengths_n2: Int[np.ndarray, "n 2"], size: int) -> Int[np.ndarray, " n"]:
    """Packs pairs into rows of `size` positions on both sides; the row of each pair, from 0.

    Each pair goes where it leaves least room of `WINDOW` open rows; where it fits nowhere, the
    fullest is closed for a new one. Lanes of pairs are packed side by side, and what their open
    rows hold at the end is packed again in fewer lanes.
    """
    row_of = np.zeros(len(lengths_n2), np.int64)
    waiting, lanes, rows = np.arange(len(lengths_n2)), len(lengths_n2) // LANE, 0
    while len(waiting):
        lanes = max(1, min(lanes, len(waiting) // LANE))
        row_of[waiting], is_open = _pack_lanes(lengths_n2[waiting], size, lanes, rows)
        rows = int(row_of.max()) + 1
        waiting = waiting[is_open] if lanes > 1 else waiting[:0]
        lanes //= 2
    return np.unique(row_of, return_inverse=True)[1]


def _pack_lanes(
    lengths_n2: Int[np.ndarray, "n 2"], size: int, lanes: int, rows: int
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Row of each pair, numbered from `rows`, and whether that row is still open at the end."""
    steps = -(-len(lengths_n2) // lanes)
    needs = np.zeros((steps * lanes, 2), np.int32)
    needs[: len(lengths_n2)] = lengths_n2
    needs = needs.reshape(steps, lanes, 2).transpose(0, 2, 1)  # [step, side, lane]
    free = np.full((2, lanes, WINDOW), size, np.int32)
    row = rows + np.arange(lanes * WINDOW).reshape(lanes, WINDOW)
    rows += lanes * WINDOW
    lane = np.arange(lanes)
    placed = np.empty((steps, lanes), np.int64)
    for step, need in enumerate(needs):
        left = free - need[:, :, None]
        room = np.where((left[0] >= 0) & (left[1] >= 0), left[0] + left[1], 2 * size + 1)
        slot = room.argmin(axis=1)
        full = np.flatnonzero(room[lane, slot] > 2 * size)
        if len(full):
            slot[full] = free[:, full].sum(axis=0).argmin(axis=1)
            free[:, full, slot[full]] = size
            row[full, slot[full]] = rows + np.arange(len(full))
            rows += len(full)
        free[:, lane, slot] -= need
        placed[step] = row[lane, slot]
    placed = placed.ravel()[: len(lengths_n2)]
    is_open = np.zeros(rows, bool)
    is_open[row] = True
    return placed, is_open[placed]
