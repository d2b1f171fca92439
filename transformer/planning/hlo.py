"""What an optimised HLO module computes and sends, read from its text; no JAX, no device.

A loop's body stands once in the text, however often the loop runs. Everything here is counted as
often as it runs: `Module.runs` multiplies by the trips of the loops around it. Where a program
branches, each branch counts as if it were taken.

Numbers are of one chip: a module of a partitioned program is what each of them runs.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16}  # others have their bits in their names
KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
LINE = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*)")
OPCODE = re.compile(r"\S* ?([\w-]+)\(")
CALLED = re.compile(
    r"\b(?:calls|body|condition|to_apply|branch_computations|called_computations"
    r"|true_computation|false_computation)=(\{[^}]*\}|%?[\w.-]+)"
)
SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")


@dataclass(frozen=True)
class Shape:
    dtype: str
    dims: tuple[int, ...]

    @property
    def bytes(self) -> int:
        bits = BITS.get(self.dtype) if self.dtype in BITS else int(_digits(self.dtype))
        return math.prod(self.dims) * (bits or 0) // 8


@dataclass(frozen=True)
class Instruction:
    """One line: `%name = shapes opcode(%operands), attributes`."""

    name: str
    shapes: tuple[Shape, ...]  # of the result; several where it is a tuple
    opcode: str
    operands: tuple[str, ...]
    arguments: str  # what stands between the parentheses
    attributes: str

    @functools.cached_property
    def calls(self) -> tuple[str, ...]:
        """The computations that it runs, each once (a loop's: once a trip)."""
        if self.opcode.endswith(("-done", "-update")):
            return ()  # of what -start began
        groups = CALLED.findall(self.attributes)
        return tuple(name for part in groups for name in re.findall(r"[\w.-]+", part))


@dataclass(frozen=True)
class Collective:
    """Chips that exchange arrays.

    Attributes:
        kind: one of KINDS.
        shapes: of what each chip puts in.
        groups: of chips that exchange; of a permute, the pairs (from, to).
        times: how often a step does it.
        source: the line of the model that asked for it, as the compiler kept it; "" = it did not.
    """

    kind: str
    shapes: tuple[Shape, ...]
    groups: np.ndarray
    times: int
    source: str

    @property
    def sent(self) -> float:
        """Bytes that a chip sends over links in all its runs, by the algorithms of a ring.

        For g chips, and b bytes that each puts in (Thakur et al. 2005, §4): all-gather (g - 1) b;
        reduce-scatter and all-to-all (g - 1) / g · b; all-reduce, which is one and then the other,
        2 (g - 1) / g · b; a permute b.
        """
        g, b = self.groups.shape[1], sum(shape.bytes for shape in self.shapes)
        share = {
            "all-gather": g - 1.0,
            "all-reduce": 2.0 * (g - 1) / g,
            "collective-permute": 1.0,
            "collective-broadcast": 1.0,
        }
        return self.times * b * share.get(self.kind, (g - 1) / g)

    def axes(self, mesh: Mapping[str, int]) -> tuple[str, ...]:
        """The axes of a mesh, name → size as its devices are numbered, along which it sends."""
        places = np.unravel_index(self.groups, tuple(mesh.values()))
        return tuple(
            axis for axis, place in zip(mesh, places, strict=True) if (place != place[:, :1]).any()
        )


class Module:
    """An optimised HLO module, of its text.

    Raises:
        ValueError: the text is none, or a loop's trips cannot be read off it.
    """

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self._entry, lines = "", {}
        for line in text.split("\n"):
            if line.endswith("{") and not line.startswith((" ", "HloModule")):
                name = re.findall(r"[\w.-]+", line)[line.startswith("ENTRY")]
                lines = self.computations.setdefault(name, {})
                self._entry = name if line.startswith("ENTRY") else self._entry
            elif match := LINE.match(line):
                lines[match[1]] = _instruction(match[1], match[2])
        if not self._entry:
            raise ValueError("no HLO module: it has no ENTRY computation")

    @functools.cached_property
    def runs(self) -> dict[str, int]:
        """Computation → how often a run of the module runs it."""
        runs = dict.fromkeys(self.computations, 0)

        def visit(name: str, times: int) -> None:
            runs[name] += times
            lines = self.computations[name]
            for line in lines.values():
                trips = self.trips(lines, line) if line.opcode == "while" else 1
                for called in line.calls:
                    visit(called, times * trips)

        visit(self._entry, 1)
        return runs

    def trips(self, lines: Mapping[str, Instruction], loop: Instruction) -> int:
        """How often a `while` among these lines runs its body.

        As the compiler notes, or by its counter: what it starts from, what it must stay below,
        what a trip adds to it.
        """
        if noted := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(noted[1])
        (condition,) = re.findall(r"condition=%?([\w.-]+)", loop.attributes)
        (body,) = re.findall(r"body=%?([\w.-]+)", loop.attributes)
        start = lines[loop.operands[0]]

        def at_start(index: int) -> int:
            return _scalar(lines, start.operands[index])

        try:
            test, update = (_last(self.computations[name]) for name in (condition, body))
            checks = self.computations[condition]
            counter = int(_digits(checks[test.operands[0]].attributes))
            if start.opcode != "tuple" or "direction=LT" not in test.attributes:
                raise ValueError("not counted up to a bound")
            first, bound = at_start(counter), _scalar(checks, test.operands[1], at_start)
            step = _scalar(
                self.computations[body],
                update.operands[counter],
                lambda index: 0 if index == counter else at_start(index),
            )
            return -((first - bound) // step)
        except (ValueError, LookupError, ZeroDivisionError) as error:
            raise ValueError(f"loop {loop.name} does not say how often it runs: {error}") from error

    @functools.cached_property
    def flops(self) -> float:
        """FLOPs of products, 2 a multiply-add: `dot`, and `convolution`, which a TPU makes of them.

        What a custom call computes, a Pallas kernel, is not in the text.
        """
        total = 0.0
        for name, lines in self.computations.items():
            for line in lines.values():
                if line.opcode in ("dot", "convolution"):
                    left, right = (lines[x].shapes[0].dims for x in line.operands)
                    count = _dot if line.opcode == "dot" else _convolution
                    total += self.runs[name] * 2.0 * count(line, left, right)
        return total

    @functools.cached_property
    def collectives(self) -> list[Collective]:
        """Each once, `times` saying how often.

        A TPU's compiler writes an asynchronous one once for each piece of work that it overlaps,
        all with one channel; and a reduce-scatter as a computation of that name with an all-reduce
        in it. These, and permutes, share channels, and count each.
        """
        by_channel: dict[object, Collective] = {}
        for name, lines in self.computations.items():
            for line in lines.values():
                kind = line.opcode.removesuffix("-start")
                if kind not in KINDS or not self.runs[name]:
                    continue
                each = kind == "collective-permute" or name.startswith("all-reduce-scatter")
                if name.startswith("all-reduce-scatter"):
                    kind = "reduce-scatter"
                channel = None if each else re.search(r"channel_id=(\d+)", line.attributes)
                shapes = tuple(shape for x in line.operands for shape in lines[x].shapes)
                key = (kind, channel[1], shapes) if channel else (name, line.name)
                source = re.search(r'op_name="([^"]*)"', line.attributes)
                by_channel[key] = Collective(
                    kind,
                    shapes,
                    _groups(line.attributes),
                    self.runs[name],
                    source[1] if source else "",
                )
        return list(by_channel.values())


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    kind = OPCODE.match(text, end)
    if kind is None:
        raise ValueError(f"not an instruction of HLO: {name} = {text[:80]}")
    close = _closing(text, kind.end() - 1)
    arguments = text[kind.end() : close - 1]
    return Instruction(
        name,
        tuple(_shapes(text[:end])),
        kind[1],
        tuple(re.findall(r"%([\w.-]+)", arguments)),
        arguments,
        text[close:],
    )


def _closing(text: str, start: int) -> int:
    """Behind the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.end()
    raise ValueError(f"a parenthesis is not closed: {text[start : start + 80]}")


def _shapes(text: str) -> Iterator[Shape]:
    for dtype, dims in SHAPE.findall(text):
        yield Shape(dtype, tuple(int(_digits(size)) for size in dims.split(",") if size))


def _digits(text: str) -> str:
    match = re.search(r"\d+", text)
    if match is None:
        raise ValueError(f"unknown to HLO: {text}")
    return match[0]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _last(lines: Mapping[str, Instruction]) -> Instruction:
    """A computation's result: its ROOT is its last line."""
    return list(lines.values())[-1]


def _unknown(index: int) -> int:
    raise ValueError(f"element {index} is not a constant")


def _scalar(
    lines: Mapping[str, Instruction], name: str, given: Callable[[int], int] = _unknown
) -> int:
    """An integer that a computation adds up from constants and elements of its parameter."""
    line = lines[name]
    match line.opcode:
        case "constant":
            return int(line.arguments)
        case "copy" | "bitcast" | "copy-start" | "copy-done":
            return _scalar(lines, line.operands[0], given)
        case "add":
            return sum(_scalar(lines, operand, given) for operand in line.operands)
        case "get-tuple-element" if lines[line.operands[0]].opcode == "parameter":
            return given(int(_digits(line.attributes)))
    raise ValueError(f"{name} is a {line.opcode}")


def _dot(line: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Multiply-adds."""
    match = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.attributes)
    summed = _numbers(match[1]) if match else []
    return math.prod(line.shapes[0].dims) * math.prod(left[dim] for dim in summed)


def _convolution(line: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Multiply-adds, those with padding and with holes left out (a batched product has many).

    As XLA's HloCostAnalysis counts them: of each spatial axis, pairs of an output's and the
    kernel's place that meet an input.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", line.attributes)
    assert labels is not None, line
    window = re.search(r"window=\{([^}]*)\}", line.attributes)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}
    count = line.shapes[0].dims[labels[3].index("b")] * right[labels[2].index("o")]
    count *= right[labels[2].index("i")]  # of one group's features
    if batches := re.search(r"batch_group_count=(\d+)", line.attributes):
        count //= int(batches[1])
    for axis in range(len(labels[1]) - 2):
        size_in, size_kernel, size_out = (
            dims[label.index(str(axis))]
            for dims, label in (
                (left, labels[1]),
                (right, labels[2]),
                (line.shapes[0].dims, labels[3]),
            )
        )

        def field(name: str, default: str, axis: int = axis) -> str:
            return fields[name].split("x")[axis] if name in fields else default

        stride, dilate = int(field("stride", "1")), int(field("rhs_dilate", "1"))
        holes, low = int(field("lhs_dilate", "1")), int(field("pad", "0_0").split("_")[0])
        place = np.arange(size_out)[:, None] * stride + np.arange(size_kernel) * dilate - low
        meets = (place >= 0) & (place < (size_in - 1) * holes + 1) & (place % holes == 0)
        count *= int(meets.sum())
    return count


def _groups(attributes: str) -> np.ndarray:
    """[groups, chips in each], in any of HLO's notations; a permute's pairs are groups of two.

    `{{0,2},{1,3}}`, `[2,2]<=[2,2]T(1,0)`, and `mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}`:
    a mesh, the order of its devices where it is not 0, 1, 2 ..., and the axes of a group.
    """
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        return np.array(_numbers(pairs[1])).reshape(-1, 2)
    if listed := re.search(r"replica_groups=\{\{(.*?)\}\}", attributes):
        return np.array([_numbers(group) for group in listed[1].split("}")])
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", attributes):
        return _iota(iota[2]).reshape(_numbers(iota[1]))
    named = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}", attributes
    )
    if named is None or ":(" in named[3]:
        raise ValueError(f"groups of chips in an unknown notation: {attributes[:200]}")
    mesh = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
    within = [list(mesh).index(axis) for axis in re.findall(r"'(\w+)'", named[3])]
    sizes = tuple(mesh.values())
    chips = _iota(named[2]) if named[2] else np.arange(math.prod(sizes))
    order = [axis for axis in range(len(sizes)) if axis not in within] + within
    each = math.prod(sizes[axis] for axis in within)
    return chips.reshape(sizes).transpose(order).reshape(-1, each)


def _iota(text: str) -> np.ndarray:
    """`[2,4]T(1,0)`: 0 ... 7 as a matrix, its axes in another order, flat again."""
    shape, _, order = text.partition("T")
    sizes = _numbers(shape)
    chips = np.arange(math.prod(sizes)).reshape(sizes)
    return chips.transpose(_numbers(order) or range(len(sizes))).reshape(-1)
