"""The benchmarks' programs, and what the one of memory must show."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import attention, attention_memory
from experiments.benchmarks.attention import Case, Skipped, measure
from experiments.benchmarks.attention_memory import BOUND, Sizes, attention_bytes
from transformer.errors import UserError

LENGTH = 32_768  # nothing is computed, so a long one costs no more than a short one

step_bytes = functools.cache(attention_memory.step_bytes)


@pytest.mark.optax
@pytest.mark.parametrize(
    "shards",
    [
        pytest.param(4, marks=pytest.mark.slow),
        *(pytest.param(count, marks=pytest.mark.long) for count in (2, 8)),
    ],
)
def test_a_long_sequences_memory_falls_with_the_devices_it_is_split_over(shards: int) -> None:
    alone = step_bytes(Sizes(), "chunked", LENGTH)
    each = step_bytes(Sizes(), "ring:chunked", LENGTH, shards)
    assert each <= BOUND / shards * alone


@pytest.mark.slow
@pytest.mark.optax
def test_a_training_steps_memory_is_linear_in_the_length() -> None:
    """Within the loop over layers too, which may keep what a single layer does not."""
    long = step_bytes(Sizes(), "chunked", LENGTH)
    assert long <= 2.1 * step_bytes(Sizes(), "chunked", LENGTH // 2)


def test_attentions_memory_is_linear_in_blocks_and_quadratic_without() -> None:
    def growth(backend: str) -> float:
        long, short = (attention_bytes(Sizes(), backend, n) for n in (8_192, 4_096))
        return long / short

    assert growth("chunked") < 2.1
    assert growth("xla") > 3.9


def test_memory_is_tabled_drawn_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def step(sizes: Sizes, backend: str, length: int, shards: int = 1) -> int:
        return length**2 if backend == "xla" else length // shards + 3 * shards

    monkeypatch.setattr(attention_memory, "step_bytes", step)
    monkeypatch.setattr(attention_memory, "attention_bytes", step)
    monkeypatch.setattr(attention_memory.jax.config, "update", lambda *_: None)
    path, picture = tmp_path / "memory.json", tmp_path / "memory.png"
    arguments = ["--length=64", "--lengths", "16", "32", f"--json={path}", f"--png={picture}"]
    attention_memory.main(arguments)
    result = json.loads(path.read_text())
    assert [(row["shards"], row["bytes"]) for row in result["shards"]] == [
        (1, 67), (2, 38), (4, 28), (8, 32),
    ]  # fmt: skip
    assert [row["growth"] for row in result["step"]] == [None, 35 / 19, None, 4.0]
    assert result["command"].startswith("python -m experiments.benchmarks.attention_memory --le")
    out = capsys.readouterr().out
    assert out.count("exceeded") == 2, "at 4 and 8 devices more is needed than the bound allows"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_operations_are_counted_as_the_docstring_says() -> None:
    case = Case(rows=2, length=7, heads=3, d=5, dtype="float32", causal=False, backward=False)
    assert case.flops == 2 * (2 * 2 * 3 * 7 * 7 * 5)
    causal = Case(2, 7, 3, 5, "float32", causal=True, backward=True)
    assert causal.flops == 3.5 * case.flops / 2


def test_contenders_take_turns_and_failures_are_lines() -> None:
    turns = []

    def contender(name: str, times: list[float]) -> Any:
        def timed(calls: int) -> float:
            turns.append(name)
            if not times:
                raise Skipped("fails: out of memory")
            return calls * times.pop(0)

        return lambda case: timed

    def refuses(case: Case) -> Any:
        raise Skipped("it is on strike")

    case = Case(rows=3, length=5, heads=1, d=2, dtype="float32", causal=False, backward=False)
    contenders = {
        "a": contender("a", [1.0, 2.0, 9.0, 4.0]),
        "b": refuses,
        "c": contender("c", [1.0] * 4),
        "d": contender("d", [1.0, 1.0]),
    }
    a, b, c, d = measure(contenders, case, repeats=3, seconds=60.0)
    assert "".join(turns) == "acd" + "acd" + "acd" + "ac"
    assert (a["milliseconds"], a["tokens_per_second"], a["repeats"]) == (4_000.0, 15 / 4.0, 3)
    assert c["tflops"] == case.flops / 1e12
    assert (b["why"], d["why"]) == ("it is on strike", "fails: out of memory")


def test_one_round_is_made_however_slow() -> None:
    case = Case(rows=3, length=5, heads=1, d=2, dtype="float32", causal=False, backward=False)
    (row,) = measure({"a": lambda case: lambda calls: 1.0}, case, repeats=3, seconds=0.0)
    assert row["repeats"] == 1


def test_backends_are_timed_tabled_drawn_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path, picture = tmp_path / "attention.json", tmp_path / "attention.png"
    sizes = ["--lengths", "16", "--tokens=32", "--heads=2", "--d=8", "--repeats=2"]
    backends = ["--backends", "ring", "cudnn", "xla"]
    attention.main([*sizes, *backends, f"--json={path}", f"--png={picture}"])
    result = json.loads(path.read_text())
    assert [(row["pass"], row["backend"], "why" in row) for row in result["rows"]] == [
        (which, name, name != "xla")
        for which in ("forward", "forward + backward")
        for name in ("ring", "cudnn", "xla")
    ]
    measured = result["rows"][2]
    assert measured["tokens_per_second"] * measured["milliseconds"] == pytest.approx(32 * 1e3)
    assert "cuDNN runs on NVIDIA GPUs" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_would_not_fit_is_not_tried() -> None:
    case = Case(1, 2**20, 16, 64, "float32", causal=True, backward=False)
    with pytest.raises(Skipped, match=r"its scores need 65,536.0 GiB of"):
        attention.prepare("xla", case)


def test_lengths_that_do_not_make_up_the_tokens_are_refused() -> None:
    with pytest.raises(UserError, match="--tokens=100 is not a multiple of length 48"):
        attention.main(["--lengths", "20", "48", "--tokens=100"])
