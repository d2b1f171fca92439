"""A run's parameters are read while a trainer deletes old checkpoints and writes new ones."""

import shutil
from pathlib import Path

import jax
import pytest

from tests.support.tiny import get_config
from transformer.checkpoints import averaging, load_params
from transformer.checkpoints.checkpoints import Checkpoints, open_checkpoints
from transformer.checkpoints.state import TrainState
from transformer.config import from_dict
from transformer.errors import UserError
from transformer.experiment import Experiment

pytestmark = pytest.mark.optax


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A run that has come to three checkpoints."""
    monkeypatch.setattr(averaging.time, "sleep", lambda _: None)
    experiment = Experiment(from_dict(get_config().to_dict()), tmp_path)
    checkpoints = open_checkpoints(experiment)
    number = jax.numpy.int32(0)
    params = jax.tree.map(
        lambda leaf: jax.numpy.ones(leaf.shape, leaf.dtype), experiment.abstract_params
    )
    for step in (60, 120, 180):
        state = TrainState(number, number, params, (), (), number)
        checkpoints.save(state, {"step": step, "stopped": False}, None)
    checkpoints.close()
    return experiment


def retire(monkeypatch: pytest.MonkeyPatch, folder: Path, *steps: int) -> None:
    """Deletes a checkpoint each time that parameters are about to be read."""
    left, real = iter(steps), Checkpoints.params

    def params(self: Checkpoints, *arguments: object) -> object:
        if step := next(left, None):
            shutil.rmtree(folder / str(step))
        return real(self, *arguments)  # pyright: ignore

    monkeypatch.setattr(Checkpoints, "params", params)


def test_a_reader_looks_again_where_a_checkpoint_has_gone(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    retire(monkeypatch, Path(experiment.workdir) / "checkpoints", 120)
    which = load_params(experiment)[1]
    assert which == "the mean of 2 checkpoints, steps 60 to 180"


def test_a_step_that_was_asked_for_and_has_gone_is_named(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    retire(monkeypatch, Path(experiment.workdir) / "checkpoints", 120)
    with pytest.raises(UserError, match="no checkpoint '120': it has average, last and steps 60"):
        load_params(experiment, "120")


def test_a_damaged_one_that_stays_is_not_looked_at_for_ever(
    experiment: Experiment,
) -> None:
    (experiment.workdir / "checkpoints/180/params/manifest.ocdbt").unlink()
    with pytest.raises(UserError, match=r"/180 cannot be used.*take another, --checkpoint=STEP"):
        load_params(experiment)
