"""How much memory restoring a checkpoint takes: the peak beside the state's own size.

    python -m experiments.benchmarks.restore_memory --json=experiments/results/restore_memory.json

A process saves a state of at least 1 GiB. For each mesh another process restores it, and reports
the most memory that it ever had, less what it had after restoring a state of a few KiB: that is the
bare process, libraries and compiled programs loaded. On a CPU the devices' memory is the host's, so
one number covers both. The digests that are checked are within it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from experiments.benchmarks.common import record
from transformer import files

BOUND = 1.3  # times the state: what restoring may take at its peak
MESHES = {
    "1 device": {"data": 1},
    "8 devices, fsdp 8": {"fsdp": 8},
    "8 devices, data 2, fsdp 4": {"data": 2, "fsdp": 4},
    "4 devices, fsdp 2, tensor 2": {"fsdp": 2, "tensor": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--width", type=int, default=1_280, help="d_model (1,280: 1.4 GiB)")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        child("save", folder, options.width, {"fsdp": 8})
        for name, axes in MESHES.items():
            found = child("restore", folder, options.width, axes)
            # Where rows are split over `data`, each of its devices has a copy of the parameters.
            state = found["state"] * axes.get("data", 1)
            rows.append({"mesh": name, **found, "times": found["peak"] / state})
            print(f"{name}: {state / 2**20:,.0f} MiB, peak {rows[-1]['times']:.2f} times that")
    if options.json:
        result = record("experiments.benchmarks.restore_memory", sys.argv[1:], rows=rows)
        files.write(options.json, json.dumps(result, indent=1) + "\n")
    if max(row["times"] for row in rows) > BOUND:
        sys.exit(f"more than {BOUND} times the state")


def child(what: str, folder: str, width: int, axes: dict[str, int]) -> dict[str, int]:
    command = [sys.executable, "-m", __spec__.name, what, folder, str(width), json.dumps(axes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.strip().split("\n")[-1])


def save_or_restore(what: str, folder: Path, width: int, axes: dict[str, int]) -> dict[str, int]:
    import jax

    jax.config.update("jax_platforms", "cpu")
    import optax

    from transformer import testing
    from transformer.checkpoints.checkpoints import Checkpoints
    from transformer.config import CheckpointsConfig
    from transformer.models import build_model
    from transformer.training.step import StateFactory

    testing.virtual_devices(8)
    layout = testing.layout(**axes)
    keep = CheckpointsConfig(every=1, keep_last=1, keep_best=0, average=1)
    result, made = {}, None
    for name, d in {"bare": 16, "state": width}.items():
        config = testing.model_config(
            encoder_layers=2,
            decoder_layers=2,
            d_model=d,
            d_ff=4 * d,
            heads=16,
            d_k=d // 16,
            d_v=d // 16,
            vocab_size=25 * d,
        )
        made = StateFactory(build_model(config), optax.adam(1e-3), layout, testing.TRAINING)
        checkpoints = Checkpoints(folder / name, keep, lower_is_better=True)
        if what == "save":
            checkpoints.save(made.create(0), {"step": 1, "stopped": False}, None)
            checkpoints.wait()
            continue
        jax.block_until_ready(checkpoints.newest(made.abstract))
        result[name] = memory("VmHWM")
    if made is None or what == "save":
        return {}
    result["peak"] = result["state"] - result["bare"]
    result["state"] = sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made.abstract)
    )
    return result


def memory(field: str) -> int:
    """Bytes of this process; VmHWM: at its highest."""
    status = Path("/proc/self/status").read_text("ascii")
    (line,) = (line for line in status.split("\n") if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    if len(sys.argv) == 5:
        what, folder, width, axes = sys.argv[1:]
        print(json.dumps(save_or_restore(what, Path(folder), int(width), json.loads(axes))))
    else:
        main()
