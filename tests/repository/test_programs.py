"""A guard against slowing down: what the main steps' programs are made of, as golden text.

    UPDATE_GOLDEN=1 tests/run tests/repository/test_programs.py    writes tests/golden/programs anew

The programs are as JAX hands them to a compiler (StableHLO), for a CPU's backends: the same on any
machine. Another JAX lowers otherwise: a text says whose it is, and elsewhere its test is skipped.
More work, more passes over an array, a transposition too many show here before anybody measures. A
new text is legitimate where the model or the step was changed on purpose: say in the commit what
grew and why. What a compiler for TPUs makes of a step is in tests/golden/tpu_aot.

A loop's body counts once, however often it runs; bytes are those of every operation by itself.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

from experiments import base
from tests.support import golden_text
from transformer.batch import Batch, Source, Target
from transformer.config import Config
from transformer.config.experiment_files import load_config
from transformer.decoding import InputShapes, Translator
from transformer.models import build_model, parameters
from transformer.planning.compiled import lowered_step
from transformer.sharding import Layout

FOLDER = Path(base.__file__).parent
GOLDEN = Path(__file__).parents[1] / "golden" / "programs"
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
COUNTED = (  # operations worth a line; all others are counted together
    "dot_general",
    "transpose",
    "gather",
    "scatter",
    "sort",
    "exponential",
    "reduce",
    "while",
    "dynamic_slice",
    "dynamic_update_slice",
    "custom_call",
)


def config_of(name: str) -> Config:
    return load_config(f"{FOLDER}/{name}", [])


def training(name: str, rows: int, length: int) -> Any:
    ids, weights = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.float32)
    batch = Batch(Source(ids, ids, ids), Target(ids, ids, ids, ids, weights))
    return lowered_step(config_of(name), Layout.single(), batch)


def decoding(name: str, rows: int, length: int, beam: int) -> Any:
    """The search that translates a batch, weights and sentences apart from their shapes."""
    config, layout = config_of(name), Layout.single()
    model = build_model(config.model)
    translator = Translator(
        model,
        None,
        _NoTokenizer(),
        dataclasses.replace(config.decoding, beam=beam, tokens_per_batch=rows * length),
        shapes=InputShapes(max_length=length, row_multiple=1, length_multiple=length),
    )
    ids = np.zeros((rows, length), np.int32)
    params = parameters.abstract(model, layout)
    return translator._search.lower(params, Source(ids, ids, ids))


class _NoTokenizer:
    encode = decode = staticmethod(lambda _: [])


PROGRAMS: dict[str, Callable[[], Any]] = {
    "train_tiny": lambda: training("multi30k_en_de_tiny.py", 128, 24),
    "train_base": lambda: training("wmt14_en_de_base.py", 32, 32),
    "train_lstm_luong": lambda: training("recurrent.py:lstm_luong", 128, 16),
    "decode_base_beam_4": lambda: decoding("wmt14_en_de_base.py", 32, 32, beam=4),
    "decode_base_greedy": lambda: decoding("wmt14_en_de_base.py", 32, 32, beam=1),
}


def text(lowered: Any) -> str:
    """Statistics of a program, a line each."""
    program = lowered.as_text()
    counts = Counter(re.findall(r"= \"?(?:stablehlo|chlo)\.(\w+)", program))
    cost = lowered.cost_analysis()
    lines = {
        "FLOPs": f"{cost['flops']:.4g}",
        "bytes accessed": f"{cost['bytes accessed']:.4g}",
        "transcendentals": f"{cost.get('transcendentals', 0.0):.4g}",
        **{name: counts.pop(name, 0) for name in COUNTED},
        "other operations": sum(counts.values()),
    }
    return golden_text.OF_JAX + "".join(f"{name} = {value}\n" for name, value in lines.items())


@pytest.mark.optax
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_what_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Lowering also fills batches with what describes an argument, which no annotation allows.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    path = GOLDEN / f"{name}.txt"
    golden_text.compare(path, text(PROGRAMS[name]()), "tests/repository/test_programs.py")


def test_no_golden_text_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*")} == {*PROGRAMS}


def test_golden_texts_are_of_the_jax_that_ci_installs() -> None:
    """Otherwise they would all be skipped there."""
    pinned = re.search(r"^jax==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    texts = [*GOLDEN.glob("*"), *GOLDEN.with_name("tpu_aot").glob("*")]
    found = {path.read_text(encoding="utf-8").splitlines()[0] for path in texts}
    assert found == {f"# of jax {pinned[1]}"}
