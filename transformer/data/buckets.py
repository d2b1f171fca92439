"""Which shapes to pad to: few of them, with little padding.

All in integers: every host must come to the same answer, whatever its arithmetic library.
"""

import numpy as np
from jaxtyping import Int, Integer

EDGES = 32  # lengths a side considered for rectangular shapes

_NEVER = np.iinfo(np.int64).max // 4  # a cost that no corpus reaches, and that can be added to


def choose_boxes(
    lengths_n2: Int[np.ndarray, "n 2"], count: int
) -> tuple[Int[np.ndarray, "boxes 2"], Integer[np.ndarray, " n"]]:
    """At most `count` boxes (S, T) for all pairs, and the cheapest box of each.

    The best squares are found exactly, by dynamic programming over max(source, target); then each
    in turn is replaced by the rectangle that saves most given the others, until none does. The
    box that holds everything always stays.

    Args:
        lengths_n2: source and target lengths from 1, in any unit; a pair with 0 is left out.
        count: how many boxes at most.

    Returns:
        Boxes by growing S + T, so that a box is behind all that fit into it; and for each pair
        its box's index, or -1 where it is left out.
    """
    top = int(lengths_n2.max())
    cell_of = lengths_n2[:, 0] * (top + 1) + lengths_n2[:, 1]
    cells_ST = np.bincount(cell_of, minlength=(top + 1) ** 2).reshape(top + 1, top + 1)
    cells_ST[0] = cells_ST[:, 0] = 0
    sizes = np.maximum.outer(np.arange(top + 1), np.arange(top + 1))
    histogram = np.zeros(top + 1, np.int64)
    np.add.at(histogram, sizes, cells_ST)

    count = min(count, top)
    squares = best_edges(histogram, count)
    edges = np.union1d(best_edges(cells_ST.sum(axis=0) + cells_ST.sum(axis=1), EDGES), squares)
    boxes = np.stack(np.meshgrid(edges, edges, indexing="ij"), axis=-1).reshape(-1, 2)
    chosen = [int(np.flatnonzero((boxes == edge).all(axis=1))[0]) for edge in squares[::-1]]
    boxes = boxes[_improve(boxes, chosen, _coarsen(cells_ST, edges), count)]
    boxes = boxes[np.lexsort((boxes[:, 0], boxes.sum(axis=1)))]

    source, target = np.indices(cells_ST.shape)
    box_of_ST = np.full(cells_ST.shape, -1, np.int16)
    for index, (s, t) in reversed(list(enumerate(boxes))):  # the cheapest that fits wins
        box_of_ST[(source > 0) & (source <= s) & (target > 0) & (target <= t)] = index
    used = np.unique(box_of_ST[cells_ST > 0])
    renumbered = np.full(len(boxes) + 1, -1, np.int16)  # index -1 stays -1
    renumbered[used] = np.arange(len(used))
    return boxes[used], renumbered[box_of_ST].ravel()[cell_of]


def best_edges(histogram: Int[np.ndarray, " top1"], count: int) -> Int[np.ndarray, " edges"]:
    """At most `count` lengths, rising to the longest, so that rounding up to them costs least.

    Args:
        histogram: how many examples have each length, from 0 to the longest.
        count: how many edges at most.
    """
    length = np.arange(len(histogram))
    below = np.cumsum(histogram)
    # cost_ba: all examples with a < length <= b, padded to b.
    cost_ba = np.where(length[:, None] > length, (below[:, None] - below) * length[:, None], _NEVER)
    cost_ba[0, 0] = 0  # an edge left unused
    best_b = cost_ba[:, 0]
    choices = []
    for _ in range(count - 1):
        total_ba = cost_ba + best_b
        choices.append(total_ba.argmin(axis=1))
        best_b = total_ba.min(axis=1)
    edges = {len(histogram) - 1}
    for choice in reversed(choices):
        edges.add(int(choice[min(edges)]))
    return np.array(sorted(edges - {0}))


def _coarsen(cells_ST: Int[np.ndarray, "S T"], edges: Int[np.ndarray, " e"]) -> np.ndarray:
    """Examples by rounded-up lengths, one number a pair of edges (row-major)."""
    corners = np.concatenate([[0], edges])
    below = cells_ST.cumsum(axis=0).cumsum(axis=1)[np.ix_(corners, corners)]
    return np.diff(np.diff(below, axis=0), axis=1).ravel()


def _improve(
    boxes: Int[np.ndarray, "boxes 2"],
    chosen: list[int],
    cells: Int[np.ndarray, " boxes"],
    count: int,
) -> list[int]:
    """Better choices of `count` boxes, from `chosen` on, whose first one holds everything."""
    inside = (boxes[None] <= boxes[:, None]).all(axis=-1)  # [box, cell]: a cell is its own box
    cost = np.where(inside, boxes.sum(axis=1)[:, None], 4 * boxes.max())[:, cells > 0]
    cells = cells[cells > 0]
    best = cost[chosen].min(axis=0) @ cells
    while True:
        for slot in range(1, count):
            others = chosen[:slot] + chosen[slot + 1 :]
            totals = np.minimum(cost, cost[others].min(axis=0)) @ cells
            chosen = [*others[:slot], int(totals.argmin()), *others[slot:]]
        total = cost[chosen].min(axis=0) @ cells
        if total >= best:
            return sorted(set(chosen))
        best = total
