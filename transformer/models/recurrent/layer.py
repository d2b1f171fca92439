"""One recurrent layer in one direction: its parameters, and how it runs over all positions."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from transformer.config import ModelConfig
from transformer.models.dropout import dropout_mask
from transformer.models.initializers import xavier
from transformer.models.products import multiply
from transformer.models.recurrent.cells import CELLS, Cell, State
from transformer.models.recurrent.recurrence import Product, Step, Weight, recur
from transformer.sharding import constrain, parameter

Carry = tuple[State, ...]  # every layer's state
Keeps = dict[str, Array]
Shares = tuple[Any, Array | None]  # added to the gates, or None; kept apart
GATES = "BWD,DZR->BWZR"  # every product that gives gates, W rows of a sentence at a time


def orthogonal_gates(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """[R, Z, R], each gate's block orthogonal: states neither fade nor grow (Saxe et al. 2014)."""
    R, Z, _ = shape
    block = nn.initializers.orthogonal()
    return jnp.stack([block(k, (R, R), dtype) for k in jax.random.split(key, Z)], axis=1)


def output_width(config: ModelConfig) -> int:
    """Width of the output projection's input: the embeddings' where the table is the same."""
    return config.recurrent.d_hidden if config.tied == "none" else config.d_model


def nothing_fed(config: ModelConfig, B: int, W: int, dtype: Any) -> Any:
    """What input feeding begins with."""
    if not config.recurrent.input_feeding:
        return ()
    return jnp.zeros((B, W, output_width(config)), dtype)


class Layer(nn.Module):
    """The parameters of one layer in one direction."""

    config: ModelConfig
    inputs: int  # width of what it reads
    width: int  # R, of its state
    fed: int = 0  # width of what is fed back to it beside its input

    def setup(self) -> None:
        cell, D, R = CELLS[self.config.family], self.inputs, self.width
        shape, axes = (cell.gates, R), ("gates", "state")

        def bias(_: Any, shape: Any, dtype: Any = jnp.float32) -> Array:
            zeros_ZR = jnp.zeros(shape, dtype)
            return zeros_ZR if cell.forget is None else zeros_ZR.at[cell.forget].set(1.0)

        self.input = parameter(self, "input", xavier(0, 2), ("embed", *axes), (D, *shape))
        self.recurrent = parameter(
            self, "recurrent", orthogonal_gates, ("embed", *axes), (R, *shape)
        )
        self.bias = parameter(self, "bias", bias, axes, shape)
        if cell.apart is not None:
            zeros = nn.initializers.zeros
            self.inner_bias = parameter(self, "inner_bias", zeros, ("state",), (R,))
        if self.fed:
            self.feed = parameter(self, "feed", xavier(0, 2), ("embed", *axes), (self.fed, *shape))

    def weights(self, dtype: Any) -> dict[str, Weight]:
        """The layer's products, for `recur`: of the input, of the state, of what is fed."""
        cell = CELLS[self.config.family]
        own = lambda x: constrain(x.astype(dtype), None, "gates", "state")  # noqa: E731
        weights = {
            "input": Weight(own(self.input)),
            # Of the two products, the one in whose loop adding it costs nothing.
            "recurrent": Weight(own(self.recurrent), self.bias.astype(dtype)),
        }
        if cell.apart is not None:
            bias_ZR, inner_ZR = jnp.zeros((2, cell.gates, self.width), dtype)
            bias_ZR = bias_ZR.at[cell.apart].set(self.bias[cell.apart].astype(dtype))
            inner_ZR = self.bias.astype(dtype).at[cell.apart].set(self.inner_bias.astype(dtype))
            weights["input"] = Weight(own(self.input), bias_ZR)
            weights["recurrent"] = Weight(own(self.recurrent), inner_ZR)
        if self.fed:
            weights["feed"] = Weight(own(self.feed))
        return weights


def advance(
    product: Product,
    name: str,
    cell: Cell,
    shares: Shares,
    state: State,
    keep: Array | None,
    dtype: Any,
) -> State:
    """One position of one layer: from its state and the input's shares of the gates.

    Those are what is still to be added to the product, and what the cell keeps apart.
    """
    h = (state[0] if keep is None else state[0] * keep).astype(dtype)
    gates = product(name, constrain(h, "batch", *[None] * (h.ndim - 2), "hidden"))
    added, apart = shares
    if added is not None:
        gates = gates + added
    apart = None if apart is None else apart.astype(jnp.float32)
    return cell.advance(gates.astype(jnp.float32), apart, state)


def input_shares(cell: Cell, layer: dict[str, Weight], x: Array) -> Shares:
    """The shares of the gates that come from a layer's input, [T, B, D], of all positions."""
    kernel, bias = layer["input"]
    gates = multiply("TBD,DZR->TBZR", x, kernel)
    return cell.shares(gates if bias is None else gates + bias[None, None])


def run_layer(
    cell: Cell,
    layer: dict[str, Weight],
    x_TBD: Array,
    init: State,
    valid_TB: Array | None,
    keep: Array | None,
    *,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[State, Array]:
    """One layer over all positions: its last state, and its outputs [T, B, R].

    Where `valid_TB` is False the state stays what it was; `keep`, [1, B, R], drops of the state.
    """
    dtype = x_TBD.dtype
    added_TBZR, apart_TBR = input_shares(cell, layer, x_TBD)

    def body(product: Product, state: State, step: Step) -> tuple[State, Array]:
        after = advance(product, "recurrent", cell, (None, step.x), state, step.fixed, dtype)
        if step.flags is not None:
            valid_B1 = step.flags[:, None]
            after = tuple(jnp.where(valid_B1, a, b) for a, b in zip(after, state, strict=True))
        return after, after[0].astype(dtype)

    same = None if keep is None else keep[0]
    steps = Step(apart_TBR, {"recurrent": added_TBZR}, valid_TB, (), same)
    weights, specs = {"recurrent": layer["recurrent"]}, {"recurrent": "BD,DZR->BZR"}
    return recur(body, specs, weights, init, steps, reverse=reverse, unroll=unroll)


def zeros(cell: Cell, *shape: int) -> State:
    """A state before the first position."""
    return tuple(jnp.zeros(shape, jnp.float32) for _ in range(cell.states))


def keeps(module: nn.Module, config: ModelConfig, shapes: dict[str, Any]) -> Keeps:
    """Dropout's masks by name, of shapes [T, B, ...]; variational ones are of one T for all.

    Those of a state ("state_0" ...) there are only with variational dropout (Gal and Ghahramani
    2016); without it only what is not recurrent is dropped (Zaremba et al. 2014).
    """
    masks = {}
    for name, shape in shapes.items():
        if config.recurrent.variational_dropout:
            shape = (1, *shape[1:])
        elif name.startswith("state"):
            continue
        mask = dropout_mask(module, config.dropout, shape)
        if mask is not None:
            masks[name] = mask.astype(jnp.float32) / (1.0 - config.dropout)
    return masks


def masked(x: Array, masks: Keeps, name: str) -> Array:
    return x * masks[name].astype(x.dtype) if name in masks else x
