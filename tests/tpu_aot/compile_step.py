"""Compiles an experiment's training step for TPUs that are not there; a process of its own.

    python compile_step.py REQUEST.json FOLDER

It leaves the optimised program, program.txt, and its bytes and seconds, report.json. No array is
made: shapes and shardings are enough.
"""

import dataclasses
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from transformer.batch import Batch, Source, Target
from transformer.config import Config, from_dict
from transformer.models import build_model
from transformer.sharding import Layout
from transformer.training.optimizers import build_optimizer, build_schedule
from transformer.training.step import StateFactory, make_train_step


def lowered_step(config: Config, layout: Layout, batch: Batch) -> Any:
    """An experiment's training step, wired as in `transformer.training.loop`."""
    schedule = build_schedule(config.optimizer.schedule, config.optimizer.schedule_options)
    optimizer = build_optimizer(
        config.optimizer.name, config.optimizer.options, schedule, config.training.clip_norm
    )
    model = build_model(config.model)
    factory = StateFactory(model, optimizer, layout, config.training)
    train_step = layout.jit(
        make_train_step(model, optimizer, schedule, config.training, config.divergence),
        donate_argnums=0,
        out_shardings=(factory.shardings, layout.replicated),
    )
    return train_step.lower(factory.abstract, batch)


def main(request: dict[str, Any], folder: Path) -> None:
    tree = importlib.import_module(request["experiment"]).get_config()
    tree.update_from_flattened_dict(request["changes"])
    config = from_dict(tree.to_dict())
    topology = topologies.get_topology_desc(platform="tpu", topology_name=request["topology"])
    layout = Layout(dataclasses.asdict(config.mesh), config.sharding.rules, topology.devices)
    began = time.monotonic()
    lowered = lowered_step(config, layout, _batch(layout, request["rows"], request["length"]))
    traced = time.monotonic()
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    report = {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,  # of outputs that reuse donated arguments
        "temp_bytes": memory.temp_size_in_bytes,
        "trace_seconds": round(traced - began, 1),
        "compile_seconds": round(time.monotonic() - traced, 1),
    }
    (folder / "program.txt").write_text(compiled.as_text() or "")
    (folder / "report.json").write_text(json.dumps(report))


def _batch(layout: Layout, rows: int, length: int) -> Batch:
    """What `Layout.place` gives, as shapes."""

    def of(dtype: Any) -> Any:
        sharding = layout.sharding(("batch", "length"), (rows, length), "a batch")
        return jax.ShapeDtypeStruct((rows, length), dtype, sharding=sharding)

    ids = of(jnp.int32)
    return Batch(Source(ids, ids, ids), Target(ids, ids, ids, ids, of(jnp.float32)))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
