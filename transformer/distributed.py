"""How many processes one run has, and how they meet.

Each process starts the same command. On TPU VMs, Slurm and GKE JAX finds the others by itself;
elsewhere the configuration's `distributed` section names the coordinator.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from transformer.errors import UserError


def initialize(*, enabled: bool, coordinator: str, processes: int, process: int) -> None:
    """Joins the run's other processes; must come before anything touches a device.

    Raises:
        UserError: some but not all of coordinator, processes and process are given.
    """
    if not enabled:
        return
    given = (bool(coordinator), processes > 0, process >= 0)
    if any(given) and not all(given):
        raise UserError(
            "config.distributed: give coordinator, processes and process together, or none of them"
        )
    named: dict[str, Any] = {}
    if all(given):
        named = {
            "coordinator_address": coordinator,
            "num_processes": processes,
            "process_id": process,
        }
    try:
        jax.distributed.initialize(
            **named, heartbeat_timeout_seconds=60, shutdown_timeout_seconds=60
        )
    except ValueError as error:
        raise UserError(
            f"config.distributed: JAX does not find the other processes here ({error}): give "
            "coordinator, processes and process"
        ) from error


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns when all processes have reached the barrier of this name."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def first_then_all(name: str, work: Callable[[], None]) -> None:
    """`work` in the first process, while the others wait for it."""
    if is_first():
        work()
    barrier(name)


def all_true(mine: bool) -> bool:
    """Whether this holds in every process; each must ask."""
    if jax.process_count() == 1:
        return mine
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.asarray(mine)).all())
