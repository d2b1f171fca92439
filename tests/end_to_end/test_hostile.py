"""Random paths, texts and files of a run directory: one line or a whole run, nothing in between.

The command line is entered where a shell enters it; only the training itself is replaced by the
saving and restoring of a small state. By hand, with other cases every time:

    HOSTILE_CASES=1000 tests/run tests/end_to_end/test_hostile.py
"""

import contextlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import transformer.training
from tests.support.processes import ROOT, TINY, error_line
from transformer.__main__ import main
from transformer.checkpoints.checkpoints import open_checkpoints
from transformer.checkpoints.state import TrainState
from transformer.data import Store
from transformer.experiment import Experiment
from transformer.runtime import Exit
from transformer.training.metrics import Metrics

CASES = int(os.environ.get("HOSTILE_CASES", "60"))


def cases(share: float) -> settings:
    return settings(
        max_examples=round(share * CASES),
        derandomize="HOSTILE_CASES" not in os.environ,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


STEPS = (10, 20)
FILES = (
    *("config.json", "environment.json", "corpus.json", "metrics.jsonl"),
    *(f"checkpoints/20/{name}" for name in ("meta/metadata", "_CHECKPOINT_METADATA")),
    *(f"checkpoints/20/params/{name}" for name in ("_METADATA", "_sharding", "manifest.ocdbt")),
)

names = st.one_of(
    st.text(st.sampled_from("ab []{}*?!\\:;,'\"$&|<>()#%~^=@+-_.\n\té漢\u2028\udce9"), min_size=1),
    st.sampled_from(
        ["gs:", "s3:", "logs:", "a[1]", "..", ".", "a.orbax-checkpoint-tmp", "x" * 300]
    ),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
contents = st.one_of(
    json_values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
    st.sampled_from([b"", b"[" * 100_000, b'{"a":' * 50_000, b"null", b"[]", b"{}", b"[[[]]]\n"]),
)


def state(step: int) -> TrainState:
    tree = {"a": jnp.full((2, 3), step, jnp.float32), "b": {"c": jnp.arange(step, step + 5)}}
    number = jnp.asarray(step, jnp.int32)
    return TrainState(number, number, tree, (), (), number)


def train(experiment: Experiment) -> Exit:
    """A training's files without its work: goes on from the newest checkpoint to step 20."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(experiment.acquire())
        experiment.store("train")
        checkpoints = open_checkpoints(experiment)
        stack.callback(checkpoints.close)
        newest = checkpoints.newest(state(0))
        began = int(newest[0].step) if newest else 0
        metrics = Metrics(experiment.workdir, step=began, total_steps=20, log_every=10)
        stack.enter_context(metrics)
        for step in STEPS:
            if step > began:
                metrics.event(step, "here")
                checkpoints.save(state(step), {"step": step, "stopped": False}, None)
        checkpoints.wait()
    return Exit.DONE


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[int, str]]]:
    """`transformer ARGUMENTS` in this process: its exit code and what it says on standard error."""
    patch = pytest.MonkeyPatch()
    patch.setattr(transformer.training, "train", train, raising=False)
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    patch.setattr("transformer.runtime.prepare", lambda: None)
    patch.setattr("signal.signal", lambda *_: None)

    def call(*arguments: str) -> tuple[int, str]:
        streams = [io.TextIOWrapper(io.BytesIO()) for _ in range(2)]
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            with pytest.raises(SystemExit) as caught:
                main(arguments)
            for stream in streams:
                stream.flush()
        return int(caught.value.code), streams[1].buffer.getvalue().decode(errors="replace")  # pyright: ignore

    yield call
    patch.undo()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An experiment's arguments: few sentences, few pieces."""
    return ["train", TINY, "--config.data.casa_roja.train_size=20", "--config.checkpoints.every=10"]


def restored(workdir: Path) -> list[int]:
    """The steps of a run's checkpoints, each whole as it was saved."""
    with contextlib.closing(open_checkpoints(Experiment.open(workdir), read_only=True)) as kept:
        for step in kept.steps:
            params = kept.restore(state(0), step)[0].params
            assert np.array_equal(params["a"], np.full((2, 3), step, np.float32))
        return kept.steps


@cases(0.4)
@given(st.lists(names, min_size=1, max_size=3))
@example(["a[1]"])
@example(["back\\slash"])
@example(["logs:", "x"])
@example(["w_\udce9"])
@example(["a*"])
def test_a_run_under_any_path_is_whole_or_refused(
    call: Callable, config: list, parts: list
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        workdir = "/".join([folder, "runs", *parts])
        code, errors = call(*config, f"--workdir={workdir}")
        if code == 0:
            assert restored(Path(workdir)) == [*STEPS]
        else:
            assert error_line(errors)


@pytest.fixture(scope="module")
def whole(call: Callable, config: list, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    code, errors = call(*config, f"--workdir={workdir}")
    assert code == 0 and errors.startswith("next: ")
    return workdir


@cases(0.45)
@given(st.sampled_from(FILES), contents)
@example("environment.json", b"null")
@example("checkpoints/20/meta/metadata", b"[" * 100_000)
@example("metrics.jsonl", b"null\n")
def test_a_file_of_anything_in_a_run_directory(
    call: Callable, config: list, whole: Path, name: str, content: bytes
) -> None:
    """The run goes on from a whole checkpoint, or says in one line why it does not."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        shutil.copytree(whole, workdir)
        (workdir / name).write_bytes(content)
        code, errors = call(*config, f"--workdir={workdir}")
        if code == 0:
            assert restored(workdir) == [*STEPS]
            assert "Traceback" not in errors
        else:
            assert error_line(errors)
            assert (workdir / name).read_bytes() == content


@cases(0.15)
@given(
    st.lists(st.tuples(*[st.binary(max_size=12) | st.text(max_size=9).map(str.encode)] * 2)),
    st.sampled_from(["", ".gz", "[0]"]),
)
def test_a_text_of_any_bytes_is_a_line_a_pair_or_refused(
    call: Callable, config: list, pairs: list, ending: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = ["--config.data.source=text", "--config.training.eval_every=0"]
        for side, number in (("source", 0), ("target", 1)):
            path = Path(folder) / f"{side}{ending}"
            good = [b"la casa", b"the house"][number]
            lines = [pair[number].replace(b"\n", b" ") for pair in pairs] + [good] * 30
            path.write_bytes(b"".join(line + b"\n" for line in lines))
            text.append(f"--config.data.text.train_{side}={path}")
        workdir = Path(folder) / "run"
        code, errors = call(*config, *text, f"--workdir={workdir}")
        if code == 0:
            store: Any = Experiment.open(workdir).store("train")
            assert isinstance(store, Store) and len(store) == len(pairs) + 30
        else:
            assert error_line(errors)


@pytest.mark.skipif("HOSTILE_CASES" not in os.environ, reason="minutes: by hand")
def test_paths_through_a_shell(tmp_path: Path) -> None:
    """A real shell, real processes, real training: 20 names."""
    odd = [
        "a[1]",
        "b\\c",
        "logs:",
        "a*",
        "a b",
        "é漢",
        "'",
        '"',
        "$HOME",
        "`x`",
        "-n",
        "~",
        "#",
        "%",
    ]
    odd += ["\n", "{a,b}", "a?", "!", "w_\udce9", "a.orbax-checkpoint-tmp"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    steps = "--config.training.steps=2 --config.training.eval_every=0"
    program = f"{sys.executable} -m transformer"
    for name in odd:
        workdir = shlex.quote(f"{tmp_path}/runs/{name}/run")
        script = f"{program} train {TINY} {steps} --workdir={workdir} && "
        script += f"echo la casa | {program} translate --workdir={workdir}"
        done = subprocess.run(
            ["bash", "-c", os.fsencode(script)], capture_output=True, env=environment, cwd=ROOT
        )
        assert done.returncode == 0, (name, done.stderr)
        assert done.stdout.count(b"\n") == 1, (name, done.stdout)
