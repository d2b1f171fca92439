"""What the benchmarks share: what a result says of its making, what a machine can do, pictures."""

import shlex
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer import machine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID = "#dddddd"


def record(module: str, arguments: Sequence[str], **results: Any) -> dict[str, Any]:
    """A result with the command, the machine and the versions that it came from."""
    described = machine.describe()
    flags = described["flags"]
    return {
        "command": f"python -m {module} {shlex.join(arguments)}".strip(),
        "machine": {key: described[key] for key in ("platform", "processor", "cores", "devices")},
        "versions": {
            **{key: described[key] for key in ("transformer", "git", "python")},
            **described["packages"],
        },
        # Folders are the machine's own affair.
        "flags": {key: value for key, value in flags.items() if not key.endswith("_DIR")},
        **results,
    }


def matrix_rate(size: int = 2_048) -> float:
    """FLOP/s of a large square product, the best of several.

    On a CPU in float32, XLA's or NumPy's, whichever is faster; else in bfloat16.
    """
    on_cpu = jax.default_backend() == "cpu"
    size, dtype = (size, jnp.float32) if on_cpu else (8_192, jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (size, size), dtype)
    compiled = jax.jit(jnp.matmul)
    fastest = _best(lambda: compiled(x, x).block_until_ready())
    if on_cpu:
        held = np.asarray(x)
        fastest = min(fastest, _best(lambda: held @ held))
    return 2 * size**3 / fastest


def memory_rate(mebibytes: int = 256) -> float:
    """Bytes a second, read and written, the best of several copies.

    On a CPU NumPy's copy, one core's; else one by the device.
    """
    source = np.ones(mebibytes * 2**20, np.uint8)
    if jax.default_backend() == "cpu":
        target = np.empty_like(source)
        return 2 * source.nbytes / _best(lambda: np.copyto(target, source))
    held, copied = jax.device_put(source), jax.jit(jnp.bitwise_not)
    return 2 * source.nbytes / _best(lambda: copied(held).block_until_ready())


def _best(call: Callable[[], Any], times: int = 10) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    call()
    return min(seconds(call) for _ in range(times))


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


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


def bars(axes: Any, rates: Mapping[str, float], ours: Container[str], digits: str = ",.0f") -> None:
    """Labelled bars, by name; ours stand out."""
    axes.set_axisbelow(True)
    colours = ["tab:blue" if name in ours else "tab:gray" for name in rates]
    drawn = axes.bar(list(rates), list(rates.values()), color=colours)
    axes.bar_label(drawn, [f"{rate:{digits}}" for rate in rates.values()], fontsize=9)
    axes.tick_params(axis="x", labelrotation=15, labelsize=9)


def limit_line(axes: Any, limit: float, text: str) -> None:
    """A line that no bar should cross."""
    axes.axhline(limit, color="tab:red", linestyle="--", linewidth=1)
    axes.annotate(text, (0.01, limit), xycoords=("axes fraction", "data"))
