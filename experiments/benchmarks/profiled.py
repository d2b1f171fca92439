"""Where a program's time goes on a CPU: what JAX's profiler saw, by the model's own names."""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from transformer.sharding import Layout

NAMED = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (?:.*op_name=\"([^\"]*)\")?", re.MULTILINE)


def scopes(
    jit: Callable[..., Any], function: Callable[..., Any], *arguments: Any, **options: Any
) -> dict[str, str]:
    """Of each instruction of `jit(function, **options)`: scopes and operation, or nothing.

    It is compiled for these arguments; all but the first are taken apart for that, since classes
    that check their fields refuse what lowering makes of them.
    """
    leaves, tree = jax.tree.flatten(arguments[1:])
    flat = jit(lambda first, *rest: function(first, *tree.unflatten(rest)), **options)
    text = flat.lower(arguments[0], *leaves).compile().as_text()
    return {m[1]: m[2] or "" for m in NAMED.finditer(text)}


class RecordedLayout(Layout):
    """One device, and `scopes` of the program that it compiles; one, for one shape."""

    scopes: dict[str, str]

    def jit(self, function: Callable, **options: Any) -> Callable:
        """Compiles as `Layout.jit` does, and notes the program's scopes at its first call."""
        self.scopes = {}
        compiled = super().jit(function, **options)

        def call(*arguments: Any) -> Any:
            jit = super(RecordedLayout, self).jit
            self.scopes = self.scopes or scopes(jit, function, *arguments)
            return compiled(*arguments)

        call.lower = compiled.lower  # pyright: ignore[reportFunctionMemberAccess]
        return call


def milliseconds(
    call: Callable[[], Any], names: dict[str, str], parts: Sequence[tuple[str, str]]
) -> dict[str, dict[str, float]]:
    """Milliseconds of one call and how often an instruction ran, by part, the most first.

    The call is made once before, since the first after a pause is slower. A loop's milliseconds are
    its own, without those of its body. Instructions may run at the same time, so that together they
    may take longer than the call.

    Args:
        names: `scopes` of the program.
        parts: name and pattern; an instruction is of the first whose pattern is found in
            "INSTRUCTION SCOPES/OPERATION". What no pattern finds is "all else".
    """
    spent: defaultdict[str, float] = defaultdict(float)
    times: Counter[str] = Counter()
    call()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        for plane in ProfileData.from_file(str(trace)).planes:
            for line in plane.lines:
                for event, nanoseconds in _own(line.events):
                    instruction = dict(event.stats).get("hlo_op")
                    if instruction in names:
                        described = f"{instruction} {names[instruction]}"
                        found = (name for name, pattern in parts if re.search(pattern, described))
                        part = next(found, "all else")
                        spent[part] += nanoseconds / 1e6
                        times[part] += 1
    most_first = sorted(spent.items(), key=lambda item: -item[1])
    return {part: {"ms": ms, "instructions": times[part]} for part, ms in most_first}


def show(spent: dict[str, dict[str, float]]) -> None:
    """What `milliseconds` says, a line a part."""
    for part, values in spent.items():
        print(f"    {values['ms']:7.1f} ms  {values['instructions']:6}  {part}")


def _own(events: Iterable[Any]) -> Iterator[tuple[Any, float]]:
    """A thread's instructions, and how long each ran without those that ran inside of it."""
    instructions = [event for event in events if "hlo_op" in dict(event.stats)]
    instructions.sort(key=lambda event: (event.start_ns, -event.duration_ns))
    own = [event.duration_ns for event in instructions]
    around: list[int] = []  # those that go on, the innermost last
    for i, event in enumerate(instructions):
        while around and instructions[around[-1]].end_ns <= event.start_ns:
            around.pop()
        if around:
            own[around[-1]] -= event.duration_ns
        around.append(i)
    return zip(instructions, own, strict=True)
