"""Where a program's time goes on a CPU: what JAX's profiler saw, by the model's own names."""

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

NAMED = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (?:.*op_name=\"([^\"]*)\")?", re.MULTILINE)


class Recorded:
    """`jit`, and the text of all that is compiled by it."""

    def __init__(self, jit: Callable[..., Any]):
        self._jit = jit
        self._programs: list[str] = []

    def __call__(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """As `jit` does; the shapes of the first call are recorded."""
        compiled, seen = self._jit(function, **options), []

        def call(*arguments: Any) -> Any:
            if not seen:
                seen.append(True)
                leaves, tree = jax.tree.flatten(arguments)
                flat = self._jit(lambda *leaves: function(*tree.unflatten(leaves)), **options)
                self._programs.append(flat.lower(*leaves).compile().as_text())
            return compiled(*arguments)

        return call

    def names(self) -> dict[str, str]:
        """Of each instruction: the scopes and the operation that it came from, or nothing."""
        return {m[1]: m[2] or "" for text in self._programs for m in NAMED.finditer(text)}


def milliseconds(
    call: Callable[[], Any], names: dict[str, str], parts: Sequence[tuple[str, str]]
) -> dict[str, dict[str, float]]:
    """Milliseconds of one call and how often an instruction ran, by part, the most first.

    Args:
        names: `Recorded.names`.
        parts: name and pattern; an instruction is of the first whose pattern is found in
            "INSTRUCTION SCOPES/OPERATION". What no pattern finds is "all else".
    """
    spent, times = Counter(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            call()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        for plane in ProfileData.from_file(str(trace)).planes:
            for line in plane.lines:
                for event in line.events:
                    instruction = dict(event.stats).get("hlo_op")
                    if instruction in names:
                        described = f"{instruction} {names[instruction]}"
                        found = (name for name, pattern in parts if re.search(pattern, described))
                        part = next(found, "all else")
                        spent[part] += event.duration_ns / 1e6
                        times[part] += 1
    return {part: {"ms": ms, "instructions": times[part]} for part, ms in spent.most_common()}
