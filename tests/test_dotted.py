"""Parts of one's own, named in a configuration, with nothing of ours patched."""

import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from transformer import testing
from transformer.attention import attend
from transformer.attention.backends import find_backend
from transformer.errors import UserError
from transformer.models import build_model
from transformer.models.transformer import EncoderDecoder
from transformer.training.optimizers import build_optimizer, build_schedule

MODULE = """
import dataclasses
import jax
import optax
from transformer.attention.backends import find_backend
from transformer.models.transformer import EncoderDecoder

def halving(first):
    return lambda count: first * 0.5**count

def plain(learning_rate, scale=1.0):
    return optax.chain(optax.scale(scale), optax.scale_by_learning_rate(learning_rate))

class Mine(EncoderDecoder):
    pass

doubled = dataclasses.replace(
    find_backend("reference"),
    name="doubled",
    compute=lambda call: 2 * find_backend("reference").compute(call),
)
no_backend = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_parts.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)


def test_an_optimizer_and_a_schedule() -> None:
    schedule: Any = build_schedule("my_parts:halving", {"first": 0.8})
    assert float(schedule(1)) == pytest.approx(0.4)
    optimizer = build_optimizer("my_parts:plain", {"scale": 2.0}, schedule, clip_norm=0.0)
    ones = jax.numpy.ones(2)
    updates: Any = optimizer.update(ones, optimizer.init(ones))[0]
    assert float(updates[0]) == pytest.approx(-1.6)
    assert build_optimizer("muon", {}, schedule, 0.0), "optax.contrib counts, too"


def test_a_family() -> None:
    model = build_model(testing.model_config(family="my_parts:Mine"))
    assert isinstance(model, EncoderDecoder) and type(model).__name__ == "Mine"


def test_an_attention_backend() -> None:
    x = jax.numpy.ones((1, 2, 1, 4))
    assert float(attend(x, x, x, backend="my_parts:doubled")[0, 0, 0, 0]) == pytest.approx(2.0)
    assert find_backend("ring:chunked").name == "ring:chunked", "which is no module's"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_schedule("no_module.x:y", {}), "optimizer.schedule is .*No module named"),
        (lambda: build_schedule("my_parts:y", {}), "my_parts has no 'y'"),
        (lambda: build_optimizer("my_parts:Mine", {}, lambda _: 0.0, 0.0), "no learning_rate"),
        (lambda: build_model(testing.model_config(family="my_parts:plain")), "no subclass of Seq"),
        (lambda: find_backend("my_parts:no_backend"), "which is no attention.Backend"),
    ],
)
def test_what_is_not_there_or_is_something_else_is_named(call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()
