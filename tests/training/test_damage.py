"""Damaged checkpoints: each file in turn, in each way; what comes back is right, or is older."""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer import testing
from transformer.config import CheckpointsConfig
from transformer.errors import UserError
from transformer.models import build_model
from transformer.training.checkpoints import Checkpoints, Unusable
from transformer.training.digests import digests
from transformer.training.step import StateFactory, TrainState

pytestmark = pytest.mark.optax
CONFIG = CheckpointsConfig(every=10, keep_last=2, keep_best=1, average=2)
MODEL = testing.model_config(
    encoder_layers=1, decoder_layers=1, d_model=16, d_ff=8, heads=2, vocab_size=38
)
KINDS: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": lambda path: path.write_bytes(_flip(path.read_bytes())),
    "deleted": lambda path: path.unlink(),
}


def _flip(content: bytes) -> bytes:
    """One bit, in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StateFactory, dict]:
    """Checkpoints 10 and 20 of a state split over 4 devices, and what they hold."""
    training = dataclasses.replace(testing.TRAINING, ema_decay=0.5)
    made = StateFactory(
        build_model(MODEL), optax.adam(0.1), testing.layout(fsdp=2, tensor=2), training
    )
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    states = {}
    with contextlib.closing(opened(folder)) as kept:
        for step in (10, 20):
            moved = jax.tree.map(lambda x, n=step: x + jnp.asarray(n, x.dtype), made.create(0))
            states[step] = moved.replace(step=jnp.asarray(step, jnp.int32))
            kept.save(states[step], {"step": step, "note": "Grüße"}, score=float(step))
            kept.wait()
    return folder, made, states


def opened(folder: Path, *, read_only: bool = False) -> Checkpoints:
    return Checkpoints(folder, CONFIG, lower_is_better=True, read_only=read_only)


def same(a: TrainState, b: TrainState) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind == "flipped" else pytest.mark.slow) for kind in KINDS],
)
def test_each_file_damaged_in_turn(
    saved: tuple[Path, StateFactory, dict],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    folder, made, states = saved
    files = [path.relative_to(folder) for path in (folder / "20").rglob("*") if path.is_file()]
    assert len(files) > 20
    went_back = 0
    for number, name in enumerate(sorted(files)):
        copy = tmp_path / str(number) / "checkpoints"
        shutil.copytree(folder, copy)
        KINDS[kind](copy / name)
        caplog.clear()
        with contextlib.closing(opened(copy)) as kept, caplog.at_level(logging.WARNING):
            found = kept.newest(made.abstract)
            assert found is not None
            state, meta = found
            assert same(state, states[meta["step"]]), f"{kind} {name}: a wrong state in silence"
            if meta["step"] == 10:
                went_back += 1
                assert f"checkpoint {copy / '20'} cannot be used (" in caplog.text, name
                assert "going on from step 10" in caplog.text
                assert (copy.parent / "damaged" / "20").is_dir() and kept.steps == [10]
                kept.save(states[20], {"step": 20}, None)  # training comes to that step again
                kept.wait()
                assert kept.steps == [10, 20]
            else:  # a file that is not needed
                assert kept.steps == [10, 20]
        shutil.rmtree(copy.parent)
    assert went_back > 6, f"{kind}: only {went_back} of {len(files)} made a difference"


def test_nothing_whole_is_left(saved: tuple[Path, StateFactory, dict], tmp_path: Path) -> None:
    """One line that names the newest; nothing is moved or deleted."""
    folder, made, _ = saved
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder, copy)
    for step in ("10", "20"):
        KINDS["flipped"](copy / step / "meta" / "metadata")
    with contextlib.closing(opened(copy)) as kept:
        with pytest.raises(UserError, match=r"none of the 2 checkpoints .*/20 cannot be used"):
            kept.newest(made.abstract)
        assert kept.steps == [10, 20]


def test_a_reader_is_told_too(saved: tuple[Path, StateFactory, dict], tmp_path: Path) -> None:
    folder, made, _ = saved
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder, copy)
    for data in (copy / "20" / "params" / "d").iterdir():
        KINDS["flipped"](data)
    with contextlib.closing(opened(copy, read_only=True)) as kept:
        with pytest.raises(Unusable, match=r"20 cannot be used"):
            kept.params(made.abstract.params, [10, 20])
        kept.params(made.abstract.params, [10])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_a_digest_sees_every_bit_and_every_move(dtype: str) -> None:
    """And not how the array is split."""
    array = jnp.asarray(np.random.default_rng(0).integers(0, 2, (8, 12)) * 3, dtype)
    (before,) = digests({"a": array}).values()
    split = testing.layout(fsdp=4, tensor=2)
    spec = jax.sharding.NamedSharding(split.mesh, jax.sharding.PartitionSpec("fsdp", "tensor"))
    assert digests({"a": jax.device_put(array, spec)}) == {"['a']": before}
    raw = np.asarray(array)
    others = [raw[::-1], raw.T, raw.reshape(12, 8), np.roll(raw, 1)]
    for bit in range(8):
        changed = raw.copy().view(np.uint8)
        changed[3, 5] ^= 1 << bit
        others += [changed.view(raw.dtype)] if dtype != "bool" else [~raw]
    for other in others:
        assert digests({"a": jnp.asarray(other)}) != {"['a']": before}
