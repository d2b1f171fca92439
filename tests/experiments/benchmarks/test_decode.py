"""The benchmark of decoding: whose turn it is, what limits it, what it writes."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from experiments.benchmarks import decode
from experiments.benchmarks.decode import Contender, measure
from experiments.benchmarks.decode_model import SIZES, Size, weights, write_model
from experiments.benchmarks.peers import Missing

TINY = SIZES["tiny"]


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "matrix_rate", lambda: 1e9)
    monkeypatch.setattr(decode, "memory_rate", lambda: 1e8)


def test_flops_and_bytes_are_those_of_the_products() -> None:
    size = Size(layers=1, d_model=4, d_ff=6, heads=2, vocabulary=10, rows=3, tokens=5)
    D, F, T = 4, 6, 5
    encoder = 4 * D * D + 2 * T * D + 2 * D * F + 2 * D * D  # the decoder's keys and values, too
    seen = sum(range(1, T + 1)) / T  # positions of what is written
    decoder = 4 * D * D + 2 * seen * D + 2 * D * D + 2 * T * D + 2 * D * F + D * 10
    assert size.flops(1) == 2 * (encoder + decoder)
    assert size.flops(4) == 2 * (encoder + 4 * decoder)
    weights = 6 * D * D + 2 * D * F + D * 10
    assert size.bytes(2) == 4 * (weights + 3 * (2 * T * D + 2 * 2 * seen * D))
    assert size.limit(1, rate=1e6, bandwidth=1e30) == pytest.approx(1e6 / size.flops(1))
    assert size.limit(1, rate=1e30, bandwidth=1e6) == pytest.approx(3e6 / size.bytes(1))


def test_contenders_take_turns() -> None:
    turns = []

    def contender(name: str, said: list[list[int]], seconds: list[float]) -> Contender:
        def run() -> float:
            turns.append(name)
            return seconds.pop(0)

        return Contender(name, said, run)

    a = contender("ours", [[1], [2]], [9.0, 1.0, 9.0, 4.0, 9.0, 2.0])
    b = contender("b", [[1], [3]], [9.0, 3.0, 9.0, 2.0, 9.0, 8.0])
    first, second = measure(TINY, 4, [a, b], rounds=3)
    assert turns == ["ours", "ours", "b", "b"] * 3
    assert first["seconds"] == 2.0 and second["seconds"] == 3.0
    assert second["ours_times_as_fast"] == 3.0, "the median of 3, 1/2 and 4"
    assert second["said_as_ours"] == 1 and first["said_as_ours"] == 2
    assert first["tokens_per_second"] == TINY.rows * TINY.tokens / 2.0


@pytest.mark.slow
def test_ours_alone_is_measured_drawn_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path, picture = tmp_path / "decode.json", tmp_path / "decode.png"
    decode.main(["--size=tiny", "--rounds=1", "--no-peers", f"--json={path}", f"--png={picture}"])
    result = json.loads(path.read_text())
    rows = {(row["beam"], row["contender"]): row for row in result["rows"]}
    assert [*rows] == [(beam, name) for beam in (1, 4) for name in decode.OURS]
    for (beam, _), row in rows.items():
        assert row["tokens_per_second"] == pytest.approx(8 * 8 / row["seconds"])
        assert row["limit_tokens_per_second"] == TINY.limit(beam, 1e9, 1e8)
    assert rows[1, "ours"]["said_as_ours"] == TINY.rows
    for row in rows.values():
        assert {name for name, _ in decode.PARTS[:4]} < {*row["where"]}
        assert all(spent["ms"] > 0 for spent in row["where"].values())
    assert "rounding of activations" in rows[4, "ours, int8"]["where"]
    assert "rounding of activations" not in rows[4, "ours"]["where"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "beam 4  ours" in capsys.readouterr().out


def test_the_model_is_written_as_safetensors_reads_it(tmp_path: Path) -> None:
    write_model(TINY, tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, found, weights(TINY))


def test_every_sentence_goes_on_to_the_limit(tmp_path: Path) -> None:
    bias_V = weights(TINY)["final_logits_bias"][0]
    assert [i for i, bias in enumerate(bias_V) if bias] == [0, TINY.vocabulary - 1]
    write_model(TINY, tmp_path)
    said = decode.ours(TINY, tmp_path, "ours", beam=1).said
    assert [len(row) for row in said] == [TINY.tokens - 1] * TINY.rows
    assert all(0 < i < TINY.vocabulary - 1 for row in said for i in row)
    assert len({tuple(row) for row in said}) > TINY.rows // 2, "they depend on the source"
    assert len({i for row in said for i in row}) > 10, "and on what was said"


def test_a_peer_that_cannot_be_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: str) -> Path:
        raise Missing("ctranslate2 cannot be installed: no network")

    monkeypatch.setattr(decode, "environment", fails)
    with pytest.raises(SystemExit, match=r"^error: ctranslate2 cannot be .*; --no-peers measures"):
        decode.main(["--size=tiny"])


@pytest.mark.peers
def test_all_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "decode.json"
    decode.main(["--size=tiny", "--rounds=1", f"--json={path}"])
    result = json.loads(path.read_text())
    assert set(result["peers"]) == {"torch", "transformers", "ctranslate2"}
    said = {(row["beam"], row["contender"]): row["said_as_ours"] for row in result["rows"]}
    for beam in decode.BEAMS:
        for name in ("Hugging Face", "CTranslate2"):
            assert said[beam, name] == TINY.rows
