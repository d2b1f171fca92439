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
    used = np.zeros(rows, bool)
    used[row_of] = True
    return (np.cumsum(used) - 1)[row_of]


def _pack_lanes(
    lengths_n2: Int[np.ndarray, "n 2"], size: int, lanes: int, rows: int
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Row of each pair, numbered from `rows`, and whether that row is still open at the end."""
    # Room is compared without its sign: where a pair does not fit, its sign bit makes it largest.
    most = max(size, int(lengths_n2.max(initial=0)))
    signed, unsigned = (np.int16, np.uint16) if 2 * most < 2**15 else (np.int32, np.uint32)
    too_little = np.iinfo(signed).min
    steps = -(-len(lengths_n2) // lanes)
    needs = np.zeros((steps * lanes, 2), signed)
    needs[: len(lengths_n2)] = lengths_n2
    needs = needs.reshape(steps, lanes, 2).transpose(0, 2, 1)  # [step, side, lane]
    free = np.full((2, lanes, WINDOW), size, signed)
    left, room, short = np.empty_like(free), *np.empty_like(free)
    row = rows + np.arange(lanes * WINDOW).reshape(lanes, WINDOW)
    rows += lanes * WINDOW
    lane = np.arange(lanes)
    placed = np.empty((steps, lanes), np.int64)
    for step, need in enumerate(needs):
        np.subtract(free, need[:, :, None], out=left)
        np.bitwise_or(*left, out=short)
        np.bitwise_and(short, too_little, out=short)
        np.add(*left, out=room)
        np.bitwise_or(room, short, out=room)
        slot = room.view(unsigned).argmin(axis=1)
        full = np.flatnonzero(room[lane, slot] < 0)
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
