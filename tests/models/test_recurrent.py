"""RNN, GRU and LSTM against step-by-step references in NumPy, and what padding may not do."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from tests.support.model_options import trained
from transformer import testing
from transformer.batch import Source, Target
from transformer.config import ModelConfig
from transformer.errors import UserError
from transformer.models import build_model, parameters
from transformer.models.recurrent.alignment import KINDS
from transformer.models.recurrent.cells import CELLS
from transformer.models.recurrent.layer import Layer, run_layer, zeros
from transformer.models.recurrent.recurrence import Step, Weight, multiply, recur
from transformer.testing import assert_equals_reference

B, S, T = 3, 7, 5
FAMILIES = ["rnn", "gru", "lstm"]
DECODERS = [(kind, fed) for kind in KINDS for fed in (False, True) if not fed or "luong" in kind]
# The default lane: each decoder with one family in turn; the slow one: with every family.
EVERY = [
    pytest.param(*decoder, family, marks=() if number == turn % 3 else pytest.mark.slow)
    for turn, decoder in enumerate(DECODERS)
    for number, family in enumerate(FAMILIES)
]


def config(family: str, attention: str = "luong_general", fed=False, **changes: Any) -> ModelConfig:
    made = testing.model_config(family=family, encoder_layers=2, decoder_layers=2, dropout=0.0)
    own = {name: changes.pop(name) for name in ("bidirectional", "unroll") if name in changes}
    own["variational_dropout"] = changes.pop("variational_dropout", False)
    recurrent = dataclasses.replace(
        made.recurrent, attention=attention, input_feeding=fed, d_hidden=26, **own
    )
    return dataclasses.replace(made, recurrent=recurrent, **changes)


# References, in float64: one sentence, one position after another ---------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def cell(family: str, p: dict, x: np.ndarray, state: list, fed: np.ndarray | None = None) -> list:
    """One position of one layer from its parameters: [D, Z, R], [R, Z, R], [Z, R]."""
    Z, R = p["bias"].shape
    z = x @ p["input"].reshape(-1, Z * R) + p["bias"].reshape(-1)
    if fed is not None:
        z = z + fed @ p["feed"].reshape(-1, Z * R)
    gates = z.reshape(Z, R)
    inner = (state[0] @ p["recurrent"].reshape(R, Z * R)).reshape(Z, R)
    if family == "rnn":
        return [np.tanh(gates[0] + inner[0])]
    if family == "gru":
        r, u = sigmoid(gates[0] + inner[0]), sigmoid(gates[1] + inner[1])
        n = np.tanh(gates[2] + r * (inner[2] + p["inner_bias"]))
        return [(1 - u) * n + u * state[0]]
    i, f, o = (sigmoid(gates[k] + inner[k]) for k in range(3))
    c = f * state[1] + i * np.tanh(gates[3] + inner[3])
    return [o * np.tanh(c), c]


def read_sentence(c: ModelConfig, p: dict, x_SD: np.ndarray) -> tuple[np.ndarray, list]:
    """The encoder on a sentence without padding: outputs, and each layer's last state."""
    finals, states = [], 2 if c.family == "lstm" else 1
    for number in range(c.encoder_layers):
        sides, ends = [], []
        for side in ("forwards", "backwards") if c.recurrent.bidirectional else ("forwards",):
            layer = p[f"{side}_{number}"]
            state = [np.zeros(layer["bias"].shape[1]) for _ in range(states)]
            outs = []
            for x in x_SD if side == "forwards" else x_SD[::-1]:
                state = cell(c.family, layer, x, state)
                outs.append(state[0])
            sides.append(np.stack(outs if side == "forwards" else outs[::-1]))
            ends.append(state)
        x_SD = np.concatenate(sides, axis=1)
        finals.append([np.concatenate(parts) for parts in zip(*ends, strict=True)])
    return x_SD, finals


def write_sentence(c: ModelConfig, p: dict, x_TD: np.ndarray, memory: np.ndarray, states: list):
    """The decoder on a sentence: hidden states, and where each position looked."""
    kind, out_TD, looked = c.recurrent.attention, [], []
    out = np.zeros(p["readout"].shape[1])

    def context(q: np.ndarray) -> np.ndarray:
        a = p.get("cross_attention", {})
        if kind in ("bahdanau", "luong_concat"):
            scores = np.tanh(q @ a["query"] + memory @ a["key"]) @ a["score"]
        else:
            scores = memory @ q if kind == "luong_dot" else (memory @ a["key"]) @ q
        weights = np.exp(scores - scores.max())
        looked.append(weights / weights.sum())
        return looked[-1] @ memory

    for x in x_TD:
        seen = context(states[-1][0]) if kind == "bahdanau" else None
        fed = seen if kind == "bahdanau" else out if c.recurrent.input_feeding else None
        for number in range(c.decoder_layers):
            layer = p[f"layers_{number}"]
            states = list(states)
            states[number] = cell(c.family, layer, x, states[number], None if number else fed)
            x = states[number][0]
        if kind not in ("none", "bahdanau"):
            seen = context(x)
        out = np.tanh(x @ p["readout"] + (0 if seen is None else seen @ p["context"]))
        out_TD.append(out)
    return np.stack(out_TD), np.array(looked)


@pytest.mark.parametrize(("kind", "fed", "family"), EVERY)
def test_a_model_is_its_equations(kind: str, fed: bool, family: str) -> None:
    """Encoder, decoder and weights of sentences of several lengths, and decoding word by word."""
    c = config(family, kind, fed, bidirectional=kind != "luong_dot", unroll=2 if fed else 1)
    batch = testing.random_batch(vocab_size=c.vocab_size, rows=B)
    with testing.layout():
        model, variables = trained(c, batch)

        @jax.jit
        def run(variables: Any, source: Source, target: Target) -> Any:
            memory = model.apply(variables, source, method="encode")
            hidden, sown = model.apply(
                variables, target, memory, method="decode", mutable=["attention"]
            )
            cache = model.apply(variables, memory, T, 2, method="init_cache")
            ids_TBW = jnp.stack([target.ids.T, target.ids[:, ::-1].T], axis=-1)

            def step(cache: Any, ids_BW: jax.Array) -> Any:
                return model.apply(variables, ids_BW, cache, method="step")[::-1]

            _, steps_TBWD = jax.lax.scan(step, cache, ids_TBW)
            return memory, hidden, sown, jnp.moveaxis(steps_TBWD, 0, 2)

        memory, hidden, sown, steps = run(variables, batch.source, batch.target)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    table = params["embedding"]["table"] * c.d_model**0.5
    for row in range(B):
        used_S, used_T = (
            int(np.sum(side.segments[row] > 0)) for side in (batch.source, batch.target)
        )
        source, states = read_sentence(
            c, params["encoder"], table[np.asarray(batch.source.ids[row])][:used_S]
        )
        assert_equals_reference(memory.hidden[row, :used_S], source, 2e-5)
        ids_T = np.asarray(batch.target.ids[row])
        expected, looked = write_sentence(c, params["decoder"], table[ids_T], source, states)
        assert_equals_reference(hidden[row, :used_T], expected[:used_T], 2e-5)
        assert_equals_reference(steps[row, 0], expected, 2e-5)
        backwards, _ = write_sentence(c, params["decoder"], table[ids_T[::-1]], source, states)
        assert_equals_reference(steps[row, 1], backwards, 2e-5)
        if kind != "none":
            (weights_NBHTS,) = sown["attention"]["decoder"]["cross_attention"]["weights"]
            assert weights_NBHTS.shape == (1, B, 1, T, S)
            assert_equals_reference(weights_NBHTS[0, row, 0, :, :used_S], looked, 2e-5)
            assert not np.any(weights_NBHTS[0, row, 0, :, used_S:])


# The recurrence -----------------------------------------------------------------------------------


def body(product: Any, carry: Any, step: Step) -> Any:
    """All that a body may use: biases, a weight with rows, constants, flags, what is fixed."""
    h, c = carry
    z = product("plain", h) * step.x
    scores = product("rows", jnp.tanh(z)) * step.fixed + step.constants
    after = jnp.where(step.flags, jnp.tanh(z), h)
    return (after, c + scores.sum(-1, keepdims=True)), (after, scores)


@pytest.mark.parametrize(("reverse", "unroll"), [(False, 1), (True, 1), (False, 3)])
def test_a_recurrence_and_its_gradients_are_those_of_a_plain_scan(reverse, unroll) -> None:
    R, Q = 11, 13
    draw = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)  # noqa: E731
    specs = {"plain": "BR,RQ->BQ", "rows": "BR,BQR->BQ"}
    weights = {
        "plain": Weight(0.3 * draw(0, R, R), draw(1, R)),
        "rows": Weight(draw(2, B, Q, R)),
    }
    flags = draw(3, T, B, 1) > -0.5
    init, constants = (draw(4, B, R), draw(5, B, 1)), draw(7, B, Q)
    x, added = draw(6, T, B, R), {"plain": draw(13, T, B, R)}
    fixed = draw(8, B, Q) > 0
    cotangents = ((draw(9, B, R), draw(10, B, 1)), (draw(11, T, B, R), draw(12, T, B, Q)))

    def ours(weights, init, x, added, constants):
        steps = Step(x, added, flags, constants, fixed.astype(jnp.float32))
        return recur(body, specs, weights, init, steps, reverse=reverse, unroll=unroll)

    def plain(weights, init, x, added, constants):
        def step(carry, at):
            here = Step(at[0], at[1], at[2], constants, fixed.astype(jnp.float32))
            return body(multiply(specs, weights, at[1]), carry, here)

        return jax.lax.scan(step, init, (x, added, flags), reverse=reverse)

    def both(function):
        @jax.jit
        def run(*arguments):
            values, pull = jax.vjp(function, *arguments)
            return values, pull(cotangents)

        return run(weights, init, x, added, constants)

    assert_equals_reference(both(ours), both(plain))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_turn_of_a_loop_copies_all_positions(family: str) -> None:
    """What is added, its sum and its gradient take turns in one array, and XLA can tell."""
    cell, c, layout = CELLS[family], config(family), testing.layout(data=1)
    layer, x_TBD = Layer(c, 12, 16), jnp.ones((T, B, 12))

    @nn.compact
    def apply(layer: Layer, x_TBD: jax.Array) -> jax.Array:
        return run_layer(cell, layer.weights(x_TBD.dtype), x_TBD, zeros(cell, B, 16), None, None)[1]

    made = functools.partial(layer.init, method=apply)
    params = nn.unbox(layout.jit(made)(jax.random.key(0), x_TBD))

    def total(params: Any, x_TBD: jax.Array) -> jax.Array:
        y_TBR: Any = layer.apply(params, x_TBD, method=apply)
        return jnp.sum(y_TBR**2)

    text = layout.jit(jax.grad(total, (0, 1))).lower(params, x_TBD).compile().as_text()
    loops = [
        text.split(f"\n%{name} ")[1].split("\n}")[0]
        for name in re.findall(r"body=%([\w.-]+)", text)
    ]
    assert len(loops) == 2
    for loop in loops:
        assert f"f32[{T},{B},{cell.gates},16]" in loop
        assert not re.findall(rf"f32\[{T},[\d,]+\]\S* copy\(", loop)


# Padding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_other_rows_change_nothing(family: str) -> None:
    """Memory, last states and hidden states of a sentence: alone, and among longer ones."""
    c = config(family)
    batch = testing.random_batch(vocab_size=c.vocab_size, rows=B)
    row = 2
    used_S, used_T = 5, 3
    assert int(np.sum(batch.source.segments[row])) == used_S
    alone = jax.tree.map(lambda x: x[row : row + 1, :used_S], batch.source)
    target = jax.tree.map(lambda x: x[row : row + 1, :used_T], batch.target)
    with testing.layout():
        model, variables = trained(c, batch)

        @jax.jit
        def run(source: Source, target: Target) -> Any:
            memory = model.apply(variables, source, method="encode")
            return memory, model.apply(variables, target, memory, method="decode")

        memory, hidden = run(batch.source, batch.target)
        expected, hidden_alone = run(alone, target)
    assert_equals_reference(memory.hidden[row, :used_S], expected.hidden[0])
    final = jax.tree.map(lambda x: x[:, row], memory.final)
    assert_equals_reference(final, jax.tree.map(lambda x: x[:, 0], expected.final))
    assert_equals_reference(hidden[row, :used_T], hidden_alone[0])


@pytest.mark.parametrize(("kind", "fed"), [("luong_general", False), ("bahdanau", False)])
def test_no_output_moves_with_what_it_may_not_see(kind: str, fed: bool) -> None:
    """By gradients: of a position with respect to each word's embedding."""
    c = config("lstm", kind, fed, vocab_size=B * (S + T))
    batch = testing.random_batch(vocab_size=9, rows=B)
    batch = batch.replace(
        source=batch.source.replace(ids=jnp.arange(B * S).reshape(B, S)),
        target=batch.target.replace(ids=B * S + jnp.arange(B * T).reshape(B, T)),
    )
    with testing.layout():
        model, variables = trained(c, batch)

        @jax.jit
        def pull(table: Any, cotangent: Any) -> Any:
            def hidden(table: Any) -> Any:
                params = {**variables["params"], "embedding": {"table": table}}
                memory = model.apply({"params": params}, batch.source, method="encode")
                return model.apply({"params": params}, batch.target, memory, method="decode")

            return jax.vjp(hidden, table)[1](cotangent)[0]

        table = variables["params"]["embedding"]["table"]
        source, target = (np.asarray(x.segments) > 0 for x in (batch.source, batch.target))
        for b in range(B):
            for t in np.flatnonzero(target[b]):
                only = jnp.zeros((B, T, c.d_model)).at[b, t].set(1.0)
                moved = np.any(np.asarray(pull(table, only)) != 0, axis=1)
                may_source, may_target = np.zeros((B, S), bool), np.zeros((B, T), bool)
                may_source[b], may_target[b, : t + 1] = source[b], True
                np.testing.assert_array_equal(moved[: B * S].reshape(B, S), may_source)
                np.testing.assert_array_equal(moved[B * S :].reshape(B, T), may_target)


# Dropout, meshes, refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fed"), [("luong_general", False), ("luong_general", True)])
@pytest.mark.parametrize("variational", [False, True])
def test_dropout(kind: str, fed: bool, variational: bool) -> None:
    """Needs a key, changes with it; variational drops the same at every position."""
    c = config("gru", kind, fed, variational_dropout=variational)
    batch = testing.random_batch(vocab_size=c.vocab_size, rows=B)
    with testing.layout():
        _, variables = trained(c, batch)
        model: Any = build_model(dataclasses.replace(c, dropout=0.5))
        memory = model.apply(variables, batch.source, method="encode")
        decode = jax.jit(
            lambda key: model.apply(
                variables, batch.target, memory, method="decode", rngs={"dropout": key}
            )
        )
        first, again, other = (np.asarray(decode(jax.random.key(seed))) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    zero_BTD = first == 0  # of the readout, whose tanh is not 0 by itself
    assert 0.3 < zero_BTD.mean() < 0.7
    assert np.array_equal(zero_BTD, zero_BTD[:, :1].repeat(T, axis=1)) == variational


@pytest.mark.parametrize(
    ("kind", "axes"),
    [
        ("luong_general", {"data": 2, "fsdp": 2, "tensor": 2}),
        pytest.param("bahdanau", {"fsdp": 8}, marks=pytest.mark.slow),
    ],
)
def test_a_step_does_not_depend_on_the_mesh(kind: str, axes: dict) -> None:
    c = config("lstm", kind, d_model=32, vocab_size=48, encoder_layers=1, decoder_layers=1)
    c = dataclasses.replace(c, recurrent=dataclasses.replace(c.recurrent, d_hidden=32))
    batch = jax.tree.map(np.asarray, testing.random_batch(vocab_size=48, rows=8))

    def step(layout: Any) -> Any:
        model: Any = build_model(c)
        params = parameters.create(model, layout, 5)
        params = jax.tree.map(lambda x: 2 * x, params)  # so that attention is not the same anywhere

        def loss(params: Any, batch: Any) -> Any:
            logits = model.apply({"params": params}, batch)
            return jnp.mean(jnp.square(logits * batch.target.weights[..., None]))

        found = layout.jit(jax.value_and_grad(loss))(params, layout.place(batch))
        return jax.tree.map(np.asarray, (params, *found))

    params, *expected = step(testing.layout())
    params_8, *found = step(testing.layout(**axes))
    assert jax.tree.all(jax.tree.map(np.array_equal, params_8, params)), "not the same bits"
    assert_equals_reference(found, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "luong"}, "choose one of none, bahdanau"),
        ({"attention": "bahdanau", "fed": True}, "input_feeding feeds Luong's"),
        ({"decoder_layers": 3}, "make model.decoder_layers = model.encoder_layers"),
        ({"remat": "full"}, "set model.remat=none"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(config("lstm", **changes))


def test_a_length_that_is_split_is_refused() -> None:
    c = config("lstm")
    batch = testing.random_batch(vocab_size=c.vocab_size, source_length=8, target_length=6, rows=4)
    with testing.layout(sequence=2), pytest.raises(UserError, match=r"set mesh\.sequence=1"):
        testing.initialised(c, batch)
