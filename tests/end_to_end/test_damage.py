"""Damaged checkpoints: each file in turn, in each way; what comes back is right, or is older."""

import contextlib
import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transformer import testing
from transformer.checkpoints import checkpoints
from transformer.checkpoints.checkpoints import Checkpoints, Unusable
from transformer.checkpoints.digests import digests
from transformer.checkpoints.state import TrainState
from transformer.config import CheckpointsConfig
from transformer.errors import UserError
from transformer.models import build_model
from transformer.training.step import StateFactory
from transformer.upstream import orbax

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
    """A bit every 150 bytes, and one in the middle of what is shorter."""
    flipped = bytearray(content)
    for place in [len(content) // 2, *range(70, len(content), 150)]:
        flipped[place] ^= 4
    return bytes(flipped)


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
            meta = {"step": step, "stopped": False, "note": "Grüße"}
            kept.save(states[step], meta, score=float(step))
            kept.wait()
    return folder, made, states


def opened(folder: Path, *, read_only: bool = False) -> Checkpoints:
    return Checkpoints(folder, CONFIG, lower_is_better=True, read_only=read_only)


def same(a: TrainState, b: TrainState) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("flipped", marks=pytest.mark.slow),
        *(
            pytest.param(kind, marks=pytest.mark.long)
            for kind in ("deleted", "truncated", "emptied")
        ),
    ],
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
                kept.save(
                    states[20], {"step": 20, "stopped": False}, None
                )  # training comes to that step again
                kept.wait()
                assert kept.steps == [10, 20]
            else:  # a file that is not needed
                assert kept.steps == [10, 20]
        shutil.rmtree(copy.parent)
    assert went_back > 6, f"{kind}: only {went_back} of {len(files)} made a difference"


def test_what_storage_does_not_notice_the_digest_does(
    saved: tuple[Path, StateFactory, dict], tmp_path: Path
) -> None:
    """Arrays that Orbax reads without complaint, and that are not those of this checkpoint."""
    folder, made, states = saved
    shutil.copytree(folder, tmp_path / "checkpoints")
    for item in ("params", "ema", "rest"):
        swapped = tmp_path / item / "checkpoints"
        shutil.copytree(folder, swapped)
        shutil.rmtree(swapped / "20" / item)
        shutil.copytree(folder / "10" / item, swapped / "20" / item)
        with contextlib.closing(opened(swapped)) as kept:
            with pytest.raises(Unusable, match=rf"20 cannot be used \(\['{item}'\].* is not what"):
                kept.restore(made.abstract, 20)
            found = kept.newest(made.abstract)
            assert found and same(found[0], states[10])


def test_a_changed_meta_is_noticed(saved: tuple[Path, StateFactory, dict], tmp_path: Path) -> None:
    """Still JSON, but not what was written."""
    folder, _, _ = saved
    shutil.copytree(folder, tmp_path / "checkpoints")
    path = tmp_path / "checkpoints/20/meta/metadata"
    path.write_text(path.read_text().replace('"score": 20.0', '"score": 1.0'))
    with contextlib.closing(opened(tmp_path / "checkpoints", read_only=True)) as kept:
        with pytest.raises(Unusable, match="it is not what was written"):
            kept.meta(20)
        assert kept.best_step == 10


def _resealed(path: Path) -> None:
    """Nothing but a seal, and that of nothing else."""
    path.write_text(json.dumps(checkpoints._sealed({})), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("meta/metadata", lambda path: path.write_bytes(b"null")),
        ("meta/metadata", lambda path: path.write_bytes(b"[" * 100_000)),
        ("meta/metadata", _resealed),
        ("meta/metadata", lambda path: (path.unlink(), path.mkdir())),
        ("meta", lambda path: (shutil.rmtree(path), path.write_bytes(b""))),
        ("params", lambda path: (shutil.rmtree(path), path.write_bytes(b""))),
        ("params", lambda path: (shutil.rmtree(path), path.symlink_to(path))),
        ("params/_METADATA", lambda path: path.write_bytes(b"[" * 100_000)),
    ],
)
def test_an_item_of_a_wrong_kind_keeps_no_older_checkpoint_from_being_used(
    saved: tuple[Path, StateFactory, dict], tmp_path: Path, name: str, damage: Callable
) -> None:
    folder, made, states = saved
    copy = tmp_path / "checkpoints"
    shutil.copytree(folder, copy)
    damage(copy / "20" / name)
    with contextlib.closing(opened(copy)) as kept:
        newest = kept.newest(made.abstract)
        assert newest and same(newest[0], states[10])


def test_only_a_stops_checkpoints_are_not_gone_back_to(
    saved: tuple[Path, StateFactory, dict], tmp_path: Path
) -> None:
    folder, made, states = saved
    shutil.copytree(folder, tmp_path / "checkpoints")
    with contextlib.closing(opened(tmp_path / "checkpoints")) as kept:
        stopped = states[20].replace(step=jnp.asarray(23, jnp.int32))
        kept.save(stopped, {"step": 23, "stopped": True}, None)
        found = kept.newest(made.abstract)
        assert found and found[1]["step"] == 23
        found = kept.newest(made.abstract, stopped=False)
        assert found and found[1]["step"] == 20 and kept.steps == [10, 20]


def test_one_that_is_being_written_is_waited_for(
    saved: tuple[Path, StateFactory, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orbax counts it as soon as its writing begins; it is not damaged."""
    folder, made, states = saved
    shutil.copytree(folder, tmp_path / "checkpoints")
    real = orbax._sync_tree
    monkeypatch.setattr(orbax, "_sync_tree", lambda path: (time.sleep(0.5), real(path)))
    with contextlib.closing(opened(tmp_path / "checkpoints")) as kept:
        kept.save(states[20], {"step": 30, "stopped": False}, None)
        found = kept.newest(made.abstract)
        assert found and found[1]["step"] == 30
    assert not (tmp_path / "damaged").exists()


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
