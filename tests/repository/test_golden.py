"""Golden text: every experiment's resolved configuration and tree of parameters.

    UPDATE_GOLDEN=1 tests/run tests/repository/test_golden.py    writes tests/golden/experiments

That is legitimate where an experiment, a key or the model was changed on purpose: read the diff,
which is what changed for its users, and commit it with the change.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from flax import linen as nn

from experiments import base, table3
from tests.support import golden_text
from tests.support.processes import EXPERIMENTS
from transformer.config import Config
from transformer.config.experiment_files import load_config
from transformer.models import build_model, parameters
from transformer.sharding import Layout

FOLDER = Path(base.__file__).parent
GOLDEN = Path(__file__).parents[1] / "golden" / "experiments"


def every_experiment() -> Iterator[str]:
    yield from sorted(path.stem for path in EXPERIMENTS)
    yield from (f"table3:{row}" for row in table3.ROWS if row != "base")


def keys(config: Config) -> dict[str, str]:
    """Every key with its value: a line each."""

    def walk(tree: dict, path: str) -> Iterator[tuple[str, str]]:
        for key, value in tree.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{path}{key}.")
            else:
                yield f"{path}{key}", json.dumps(value)

    return dict(walk(config.as_dict(), ""))


def tree(config: Config) -> dict[str, str]:
    """Every parameter with its shape and logical axes."""
    with Layout.single() as layout:
        boxes = jax.eval_shape(lambda: parameters.boxed(build_model(config.model), layout, 0))
    leaves: Any = jax.tree_util.tree_leaves_with_path(
        boxes, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    )
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): " x ".join(
            f"{name or 'whole'} {size}"
            for name, size in zip(box.names, box.value.shape, strict=True)
        )
        for path, box in leaves
    }


def text(name: str) -> str:
    """base.py in full; of others what differs from it, and their parameters in full.

    Of a table's rows what differs of their parameters, too.
    """
    (of_config, of_tree), titles = resolved(name), ["config", "parameters"]
    if name != "base":
        plain_config, plain_tree = resolved("base")
        of_config, titles[0] = differences(of_config, plain_config), "config, beside base's"
        if ":" in name:
            of_tree, titles[1] = differences(of_tree, plain_tree), "parameters, beside base's"
    return "\n".join(
        f"# {title}\n" + "".join(f"{key} = {value}\n" for key, value in part.items())
        for title, part in zip(titles, (of_config, of_tree), strict=True)
    )


@functools.cache
def resolved(name: str) -> tuple[dict[str, str], dict[str, str]]:
    experiment, _, row = name.partition(":")
    config = load_config(f"{FOLDER / experiment}.py:{row}", [])
    return keys(config), tree(config)


def differences(here: dict[str, str], there: dict[str, str]) -> dict[str, str]:
    gone = {key: "(none)" for key in there if key not in here}
    return {key: value for key, value in here.items() if there.get(key) != value} | gone


@pytest.mark.parametrize("name", list(every_experiment()))
def test_an_experiment_is_what_it_was(name: str) -> None:
    path = GOLDEN / f"{name.replace(':', '_')}.txt"
    golden_text.compare(path, text(name), "tests/repository/test_golden.py")


def test_no_golden_text_is_left_over() -> None:
    names = {f"{name.replace(':', '_')}.txt" for name in every_experiment()}
    assert {path.name for path in GOLDEN.glob("*")} == names
