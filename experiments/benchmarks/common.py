"""What the benchmarks share: what a result says of its making, and pictures."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformer import runtime

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = "#dddddd"


def record(module: str, arguments: Sequence[str], **results: Any) -> dict[str, Any]:
    """A result with the command, the machine and the versions that it came from."""
    described = runtime.describe()
    flags = described["flags"]
    return {
        "command": f"python -m {module} {shlex.join(arguments)}".strip(),
        "machine": {key: described[key] for key in ("platform", "cores", "devices")},
        "versions": {
            **{key: described[key] for key in ("transformer", "git", "python")},
            **described["packages"],
        },
        # Folders are the machine's own affair.
        "flags": {key: value for key, value in flags.items() if not key.endswith("_DIR")},
        **results,
    }


def new_figure(panels: int) -> "Figure":
    """A figure of panels side by side, to be drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * panels, 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes in figure.subplots(1, panels, squeeze=False).flat:
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
