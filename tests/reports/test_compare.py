"""The comparison's parts: budgets, the reach of gradients, speed and memory, findings."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compare as experiment
from tests.support.processes import ROOT
from transformer import testing
from transformer.batch import BOS, Source, Target
from transformer.config import ComparisonConfig, Config, SpeedConfig, from_dict
from transformer.config.experiment_files import load_config
from transformer.errors import UserError
from transformer.experiment import Experiment
from transformer.models import build_model
from transformer.reports.compare import budgets, speed
from transformer.reports.compare.findings import findings
from transformer.reports.compare.reach import reach
from transformer.reports.compare.results import Results, bins
from transformer.reports.runs import Run

pytestmark = pytest.mark.optax


FEW = {"data": {"recall": {"test_size": 2}}}
COPY = {name: FEW for name in ("transformer", "lstm_none", "lstm_luong")}


@pytest.fixture(scope="module")
def smoke() -> ComparisonConfig:
    return from_dict(experiment.get_config("smoke").to_dict(), ComparisonConfig)


def matched(config: ComparisonConfig, budget: str, **changes: Any) -> dict[str, Config]:
    options: dict[str, Any] = {"length": 12, "minutes": 1.0, "speeds": {}} | changes
    group = config.translation
    if budget == "parameters":
        group = budgets.with_equal_parameters(group, "transformer")
    return budgets.with_equal_updates(group, "transformer", budget, **options)


def test_every_variant_resolves_and_comes_back(smoke: ComparisonConfig) -> None:
    for variant in ("", ":small"):
        path = f"{ROOT}/experiments/compare.py{variant}"
        config = load_config(path, ["--config.translation.lstm_none.seed=7"], ComparisonConfig)
        assert config.translation["lstm_none"].seed == 7
        assert from_dict(config.as_dict(), ComparisonConfig) == config
    assert smoke.recall["copy"]["lstm_none"].model.d_model == 32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1,)}, r"seeds is \(1,\); an interval needs two or more"),
        ({"budget": "money"}, r"budget is 'money'; choose one of tokens, parameters, flops"),
        ({"reference": "rnn"}, r"translation has no experiment 'rnn', which `reference` names"),
        ({"length_bins": (5, 5)}, r"length_bins is \(5, 5\); .* ascending"),
        ({"sedes": (1, 2)}, r"unknown key config.sedes: did you mean config.seeds"),
        ({"speed": {"lengths": (16,)}}, r"speed.lengths is \(16,\); it needs two or more from 16"),
        ({"recall": {"copy": COPY}}, r"recall.copy: data.recall.dev_size and test_size must have"),
        (
            {"translation": {"lstm_none": {"data": {"max_length": 32}}}},
            r"translation.lstm_none.data differs from translation.transformer.data",
        ),
        (
            {"recall": {"copy": {"lstm_none": {"model": {"heads": 0}}}}},
            r"config.recall.copy.lstm_none: model.heads is 0; it must be above 0",
        ),
    ],
)
def test_bad_values_are_refused_with_a_reason(changes: dict, message: str) -> None:
    tree = experiment.get_config("smoke").to_dict()

    def merge(into: dict, new: dict) -> None:
        for key, value in new.items():
            merge(into[key], value) if isinstance(value, dict) else into.update({key: value})

    merge(tree, changes)
    with pytest.raises(UserError, match=message) as caught:
        from_dict(tree, ComparisonConfig)
    assert "\n" not in str(caught.value)


def test_the_same_tokens_are_the_same_steps(smoke: ComparisonConfig) -> None:
    longer = {
        name: dataclasses.replace(c, training=dataclasses.replace(c.training, steps=n))
        for n, (name, c) in enumerate(smoke.translation.items(), start=50)
    }
    changed = dataclasses.replace(smoke, translation=longer)
    assert {c.training.steps for c in matched(changed, "tokens").values()} == {
        longer["transformer"].training.steps
    }


def test_the_same_flops_are_other_steps(smoke: ComparisonConfig) -> None:
    spent = {}
    for name, config in matched(smoke, "flops").items():
        flops = type(build_model(config.model)).flops_per_token(config.model, 12)
        spent[name] = flops * config.training.steps
    for value in spent.values():
        assert value == pytest.approx(spent["transformer"], rel=0.02)  # of 40 steps, half a one
    assert len({c.training.steps for c in matched(smoke, "flops").values()}) > 1


def test_the_same_parameters_are_another_width(smoke: ComparisonConfig) -> None:
    found = matched(smoke, "parameters")
    total = budgets.count(smoke.translation["transformer"])
    assert found["transformer"] == budgets.with_steps(smoke.translation["transformer"], 60)
    for config in found.values():
        near = abs(budgets.count(config) - total)
        assert near <= 0.1 * total
        for other in (-8, 8):
            r = config.model.recurrent
            model = dataclasses.replace(
                config.model, recurrent=dataclasses.replace(r, d_hidden=r.d_hidden + other)
            )
            if config.model.family != "transformer":
                assert near <= abs(budgets.count(dataclasses.replace(config, model=model)) - total)


def test_the_same_minutes_are_steps_at_the_measured_speed(smoke: ComparisonConfig) -> None:
    speeds = {"transformer": 512.0, "lstm_none": 1_024.0, "lstm_luong": 256.0}
    found = matched(smoke, "minutes", minutes=2.0, speeds=speeds)
    assert {name: c.training.steps for name, c in found.items()} == {
        "transformer": 120,  # batches of 512 tokens
        "lstm_none": 240,
        "lstm_luong": 60,
    }
    assert {c.training.minutes for c in found.values()} == {2.0}


def test_a_schedule_ends_with_its_training() -> None:
    small = from_dict(experiment.get_config("small").to_dict(), ComparisonConfig)
    config = budgets.with_steps(small.translation["lstm_none"], 1_400)
    assert config.optimizer.schedule_options["decay_steps"] == 1_400
    config = budgets.with_steps(small.translation["lstm_none"], 50)  # shorter than its warm-up
    assert config.optimizer.schedule_options["decay_steps"] == 50
    assert config.optimizer.schedule_options["warmup_steps"] < 50


@pytest.mark.slow
@pytest.mark.parametrize("family", ["transformer", "lstm"])
def test_reach_is_the_norm_of_the_jacobian(family: str, tmp_path: Path) -> None:
    """Against the whole Jacobian: a table row for each position, which no other use touches."""
    B, S, V = 2, 7, 37
    config = testing.model_config(family=family, tied="none", dropout=0.0, decoder_layers=2)
    tree = experiment.get_config("smoke").to_dict()["translation"]["transformer"]
    experiment_ = Experiment(from_dict(tree), tmp_path)
    experiment_.__dict__["model"] = build_model(config)
    source = Source(
        np.arange(B * S, dtype=np.int32).reshape(B, S) + 5,
        np.tile(np.arange(S, dtype=np.int32), (B, 1)),
        np.ones((B, S), np.int32),
    )
    on_device = jax.tree.map(jnp.asarray, source)
    batch = testing.random_batch(vocab_size=V, rows=B, source_length=S)
    with testing.layout():
        model, variables = testing.initialised(config, batch)
    params = variables["params"]
    one = np.ones((B, 1), np.int32)
    target = Target(*map(jnp.asarray, (one * BOS, one * 0, one, one, one.astype(np.float32))))

    def first_logits(table: jax.Array) -> jax.Array:
        changed = {**params, "embedding": {**params["embedding"], "source_table": table}}
        memory: Any = model.apply({"params": changed}, on_device, method="encode")
        hidden = model.apply({"params": changed}, target, memory, method="decode")
        logits: Any = model.apply({"params": changed}, hidden, method="logits")
        return logits[:, 0]

    table = params["embedding"]["source_table"]
    jacobian = testing.layout().jit(jax.jacrev(first_logits))(table)  # [B, V, V of ids, D]
    rows = jnp.stack([jacobian[b][:, source.ids[b]] for b in range(B)])  # [B, V, S, D]
    squares_BS = jnp.sum(rows**2, axis=(1, 3)) / config.d_model  # inputs are rows times √D
    expected = np.sqrt(np.asarray(squares_BS).mean(axis=0))[::-1]
    found = reach(experiment_, jax.device_get(params), source, probes=3_000, seed=1)
    assert found.shape == (S,)
    np.testing.assert_allclose(found, expected, rtol=0.06)


@pytest.mark.slow
def test_what_decoding_keeps(smoke: ComparisonConfig) -> None:
    """A recurrent state is one vector a layer; a Transformer's keys and values grow."""
    config = SpeedConfig(lengths=(17, 34), tokens=34, rows=2, rounds=1, longest=1.0)
    group = {name: smoke.translation[name] for name in ("transformer", "lstm_luong")}
    found = speed.measure(group, 17, config, skip={"transformer"})
    assert found["transformer"]["train_seconds"] is None
    assert found["lstm_luong"]["train_tokens"] > 0.0
    assert all(row["decode_tokens"] > 0.0 for row in found.values())
    N, D, R, S = 2, 32, 32, 17
    # Keys, values, and at each position whose they are.
    assert found["transformer"]["state_bytes"] == 4 * (N * 2 * S * D + S)
    assert found["transformer"]["memory_bytes"] == 4 * N * 2 * S * D
    assert found["lstm_luong"]["state_bytes"] == 4 * N * 2 * R  # h and c
    assert found["lstm_luong"]["memory_bytes"] == 4 * 2 * S * R  # keys and values


def made_up(smoke: ComparisonConfig, folder: Path, scores: dict[str, tuple[str, str]]) -> Results:
    """Results of translation in which each experiment got these sentences right, by seed."""
    config = dataclasses.replace(smoke, recall={}, length_bins=(4,))
    runs = [
        Run("translation", name, seed, smoke.translation[name], folder)
        for name in scores
        for seed in (0, 1)
    ]
    rows = {
        name: {
            "train_rounds": [2.0, 2.2] if name == "transformer" else [1.0, 1.0],
        }
        for name in scores
    }
    results = Results(config, {16: rows, 64: rows}, runs)
    results.__dict__["_read"] = {
        ("translation", name): [
            {
                "lengths": [3, 3, 9, 9],
                "correct": correct,
                "exact_match": 100.0 * correct.count("1") / 4,
                "parameters": 1_000,
            }
            for correct in both
        ]
        for name, both in scores.items()
    }
    return results


def test_findings_say_which_way_it_fell(smoke: ComparisonConfig, tmp_path: Path) -> None:
    scores = {
        "transformer": ("1100", "1100"),
        "lstm_none": ("1100", "1100"),
        "lstm_luong": ("1111", "1111"),
    }
    results = made_up(smoke, tmp_path, scores)
    assert bins(results) == [(1, 4), (5, 9)]
    said = {f.claim: f for f in findings(results)}
    helps = said["Attention helps a recurrent translator"]
    assert helps.verdict == "borne out"
    assert helps.measured == "lstm_luong less lstm_none, exact match: +50.0 points"
    more = said["It helps more, the longer the sentence"]
    assert more.verdict == "borne out" and more.measured.endswith("+100.0 points")
    better = "The Transformer translates better than recurrent networks with attention"
    assert said[better].verdict == "contradicted"
    assert said["One parallel pass trains faster than a step for each position"].verdict == (
        "contradicted"
    )
    scores["lstm_luong"] = ("1111", "0000")
    said = {f.claim: f for f in findings(made_up(smoke, tmp_path, scores))}
    assert said["Attention helps a recurrent translator"].verdict == "undecided"
