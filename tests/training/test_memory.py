"""A model that no memory can hold is refused before a run directory is touched."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from tests.support.tiny import get_config
from transformer import memory as system
from transformer import training
from transformer.checkpoints.state import TrainState
from transformer.config import from_dict
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.training import memory


def test_it_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = get_config()
    config.model.d_model = config.model.d_ff = 2**20
    run = Experiment(from_dict(config.to_dict()), tmp_path / "run")
    with pytest.raises(UserError, match=r"[\d,]+ parameters.* take at least [\d,.]+ GiB, and"):
        training.train(run)
    assert not any(tmp_path.iterdir())


def test_what_fits_to_a_byte_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    single = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    two = jax.ShapeDtypeStruct((3, 5), jnp.float32, sharding=single)
    state = TrainState(two, two, {"a": two}, (two, two), (), ())
    needed = 4 * 15 * (5 + 1)  # and the gradients of the parameters
    assert memory.least_bytes(state) == needed
    monkeypatch.setattr(system, "available_bytes", lambda: needed)
    memory.refuse_too_large(state)
    monkeypatch.setattr(system, "available_bytes", lambda: needed - 1)
    with pytest.raises(UserError, match="15 parameters"):
        memory.refuse_too_large(state)


def test_memory_that_runs_out_all_the_same_is_one_line() -> None:
    line = re.escape("out of memory with data.tokens_per_batch=9")
    with pytest.raises(UserError, match=line), memory.said_in_one_line(9):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 2")
    with pytest.raises(jax.errors.JaxRuntimeError), memory.said_in_one_line(9):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
