"""Our recurrent layers against PyTorch's, with the same weights: values and gradients.

    tests/run -m peers tests/models/test_recurrent_torch.py

PyTorch is installed by itself, once, into an environment of its own.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from experiments.benchmarks.peers import environment
from experiments.benchmarks.recurrent import TORCH
from transformer import testing
from transformer.models.recurrent.cells import CELLS
from transformer.models.recurrent.layer import Layer, run_layer, zeros
from transformer.testing import assert_equals_reference

T, B, D, R = 7, 5, 13, 11
ORDER = {"rnn": [0], "gru": [0, 1, 2], "lstm": [0, 1, 3, 2]}  # PyTorch's gates, by ours
PROGRAM = """
import json, sys, torch
case = json.load(sys.stdin)
read = lambda name: torch.tensor(case[name], dtype=torch.float32)
kind = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[case["family"]]
layer = kind(read("x").shape[2], read("recurrent").shape[1])
names = {"weight_ih_l0": "input", "weight_hh_l0": "recurrent", "bias_ih_l0": "bias",
         "bias_hh_l0": "inner_bias"}
for ours, name in names.items():
    getattr(layer, ours).data = read(name)
x = read("x").requires_grad_()
out, _ = layer(x)
wanted = [x] + [getattr(layer, name) for name in names]
grads = torch.autograd.grad(out, wanted, read("cotangent"))
found = dict(zip(["x", *names.values()], grads), out=out)
json.dump({name: value.tolist() for name, value in found.items()}, sys.stdout)
"""


@pytest.mark.peers
@pytest.mark.parametrize("family", ["rnn", "gru", "lstm"])
def test_a_layer_is_pytorchs(family: str, tmp_path: Path) -> None:
    cell, config = CELLS[family], testing.model_config(family=family)

    class One(nn.Module):
        @nn.compact
        def __call__(self, x_TBD: Any) -> Any:
            own = Layer(config, D, R).weights(x_TBD.dtype)
            return run_layer(cell, own, x_TBD, zeros(cell, B, R), None, None)[1]

    x, cotangent = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(T, B, D), (T, B, R)])
    )
    with testing.layout():
        random = np.random.default_rng(2)  # no parameter is at the value that it begins with
        params = jax.tree.map(
            lambda leaf: jnp.asarray(leaf + 0.1 * random.normal(size=leaf.shape), leaf.dtype),
            nn.unbox(One().init(jax.random.key(2), x)),
        )
        out, pull = jax.vjp(One().apply, params, x)
        grads, dx = pull(cotangent)

    def theirs(tree: Any) -> dict[str, Any]:
        """Our parameters, or their gradients, as PyTorch lays them out: [Z R, D]."""
        (own,) = tree["params"].values()
        gates = lambda p: p[..., jnp.array(ORDER[family]), :]  # noqa: E731
        flat = lambda p: np.asarray(gates(p)).reshape(p.shape[0], -1).T  # noqa: E731
        inner = jnp.zeros_like(own["bias"])
        if "inner_bias" in own:
            inner = inner.at[cell.apart].set(own["inner_bias"])
        return {
            "input": flat(own["input"]),
            "recurrent": flat(own["recurrent"]),
            "bias": np.asarray(gates(own["bias"])).ravel(),
            "inner_bias": np.asarray(gates(inner)).ravel(),
        }

    case = {"x": x, "cotangent": cotangent, **theirs(params)}
    request = {"family": family, **{k: np.asarray(v).tolist() for k, v in case.items()}}
    python = environment(*TORCH)
    answer = subprocess.run(
        [python, "-c", PROGRAM], input=json.dumps(request), capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    expected = {k: np.asarray(v, np.float32) for k, v in json.loads(answer.stdout).items()}
    found = {"x": dx, "out": out, **theirs(grads)}
    if cell.apart is None:
        del found["inner_bias"], expected["inner_bias"]
    else:  # where the two biases are one of ours, they have the same gradient
        inner = expected.pop("inner_bias").reshape(-1, R)[cell.apart]
        expected["inner_bias"], found["inner_bias"] = (
            inner,
            found["inner_bias"].reshape(-1, R)[cell.apart],
        )
    assert_equals_reference({k: found[k] for k in sorted(found)}, dict(sorted(expected.items())))
