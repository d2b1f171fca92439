"""Layers on top of each other: the encoder reads, the decoder looks and writes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from transformer.config import ModelConfig
from transformer.models.initializers import xavier
from transformer.models.recurrent.alignment import ADDITIVE, SPECS, Alignment, align
from transformer.models.recurrent.cells import CELLS, State
from transformer.models.recurrent.layer import (
    GATES,
    Carry,
    Keeps,
    Layer,
    Shares,
    advance,
    input_shares,
    keeps,
    masked,
    nothing_fed,
    output_width,
    run_layer,
    zeros,
)
from transformer.models.recurrent.recurrence import Product, Step, Weight, multiply, recur
from transformer.models.seq2seq import Memory
from transformer.sharding import constrain, parameter


class Encoder(nn.Module):
    """Layers over the source, in one direction or in both (Schuster and Paliwal 1997)."""

    config: ModelConfig

    def setup(self) -> None:
        c, r = self.config, self.config.recurrent
        widths = [c.d_model] + [r.d_hidden] * (c.encoder_layers - 1)
        if r.bidirectional:
            self.forwards = [Layer(c, width, r.d_hidden // 2) for width in widths]
            self.backwards = [Layer(c, width, r.d_hidden // 2) for width in widths]
        else:
            self.forwards = [Layer(c, width, r.d_hidden) for width in widths]

    def __call__(self, x: Array, valid: Array) -> tuple[Array, Carry]:
        """Reads x [S, B, D]; returns the last layer's outputs, and each layer's last state."""
        c, r, cell = self.config, self.config.recurrent, CELLS[self.config.family]
        (S, B, _), finals = x.shape, []
        for number, forwards in enumerate(self.forwards):
            directions = [forwards, *([self.backwards[number]] if r.bidirectional else [])]
            shapes = {f"state_{way}": (S, B, own.width) for way, own in enumerate(directions)}
            masks = keeps(self, c, {**shapes, **({"input": x.shape} if number else {})})
            x_SBD = masked(x, masks, "input")
            ends, outs = [], []
            for way, layer in enumerate(directions):
                init = zeros(cell, B, layer.width)
                own, keep = layer.weights(x.dtype), masks.get(f"state_{way}")
                end, out_SBR = run_layer(
                    cell, own, x_SBD, init, valid, keep, reverse=bool(way), unroll=r.unroll
                )
                ends.append(end)
                outs.append(out_SBR)
            x = jnp.concatenate(outs, axis=-1)
            finals.append(tuple(jnp.concatenate(e, axis=-1) for e in zip(*ends, strict=True)))
        return x, tuple(finals)


def look(
    config: ModelConfig, product: Product, query: Array, step: Step
) -> tuple[Array | None, Array | None]:
    """Context and weights of queries [B, W, R]; neither without attention."""
    if config.recurrent.attention == "none":
        return None, None
    return align(product, query, step.constants, step.fixed[0])


def read(product: Product, h: Array, context: Array | None) -> Array:
    """tanh(W [context; h]) (Luong et al. 2015, Eq. 5)."""
    out_BWD = product("readout", h)
    return jnp.tanh(out_BWD if context is None else out_BWD + product("context", context))


def position(
    config: ModelConfig, dtype: Any, record: bool, product: Product, carry: Any, step: Step
) -> tuple[Any, Any]:
    """One position of the decoder, for `recur` and for decoding: W rows of a sentence.

    The carry is every layer's state and, with input feeding, the output before. The words' share
    of the first layer's gates is in `step.added` and, what is apart, `step.x`; in `step.fixed` the
    memory's mask and dropout's masks.
    """
    r, cell = config.recurrent, CELLS[config.family]
    (states, fed), shares = carry, (None, step.x)
    masks: Keeps = {**step.flags, **step.fixed[1]}
    if r.attention == "bahdanau":
        context, looked = align(product, states[-1][0].astype(dtype), step.constants, step.fixed[0])
        shares = both(shares, cell.shares(product("feed_0", context)))
    elif r.input_feeding:
        shares = both(shares, cell.shares(product("feed_0", fed)))
    after: list[State] = []
    for number, state in enumerate(states):
        if number:
            h_BWR = masked(after[-1][0].astype(dtype), masks, f"input_{number}")
            shares = cell.shares(product(f"input_{number}", h_BWR))
        keep = masks.get(f"state_{number}")
        after.append(advance(product, f"recurrent_{number}", cell, shares, state, keep, dtype))
    h_BWR = after[-1][0].astype(dtype)
    if r.attention != "bahdanau":
        context, looked = look(config, product, h_BWR, step)
    out_BWD = masked(read(product, h_BWR, context), masks, "readout")
    carry = tuple(after), out_BWD if r.input_feeding else fed
    return carry, (out_BWD, looked if record else ())


def both(words: Shares, fed: Shares) -> Shares:
    """The first layer's shares: the words' (the sum of which the product adds) and what is fed."""
    if words[1] is None or fed[1] is None:
        return fed
    return fed[0], words[1] + fed[1]


class Decoder(nn.Module):
    """Layers over the target, an alignment, and what the output projection reads."""

    config: ModelConfig

    def setup(self) -> None:
        c, r = self.config, self.config.recurrent
        R, out = r.d_hidden, output_width(c)
        fed = R if r.attention == "bahdanau" else out if r.input_feeding else 0
        widths = [c.d_model] + [R] * (c.decoder_layers - 1)
        self.layers = [Layer(c, width, R, 0 if n else fed) for n, width in enumerate(widths)]
        axes = ("embed", "hidden")
        self.readout = parameter(self, "readout", xavier(0, 1), axes, (R, out))
        if r.attention != "none":
            self.context = parameter(self, "context", xavier(0, 1), axes, (R, out))
            self.cross_attention = Alignment(c)

    def prepare(self, memory: Array) -> dict[str, Array]:
        """What depends on the source alone."""
        if self.config.recurrent.attention == "none":
            return {}
        return self.cross_attention.prepare(memory)

    def inputs(self, x: Array) -> Shares:
        """The words' shares of the first layer's gates, from [T, B, D] or [B, W, D]."""
        own = self.layers[0].weights(x.dtype)
        return input_shares(CELLS[self.config.family], own, x)

    def products(self, prepared: dict[str, Array], dtype: Any) -> tuple[Any, Any, Any]:
        """Specs and weights of all that one position multiplies, and the constants beside them."""
        whole = lambda x: Weight(constrain(x.astype(dtype), None, "hidden"))  # noqa: E731
        weights, constants = {"readout": whole(self.readout)}, {}
        if self.config.recurrent.attention != "none":
            weights["context"] = whole(self.context)
            more, constants = self.cross_attention.weights(prepared)
            weights |= more
        specs = {"readout": "BWR,RD->BWD", "context": "BWR,RD->BWD", **SPECS}
        for number, layer in enumerate(self.layers):
            for name, weight in layer.weights(dtype).items():
                if (name, number) != ("input", 0):  # which `inputs` gives
                    specs[f"{name}_{number}"], weights[f"{name}_{number}"] = GATES, weight
        return {name: specs[name] for name in weights}, weights, constants

    def __call__(
        self, x: Float[Array, "B T D"], init: Carry, memory: Memory
    ) -> Float[Array, "B T Q"]:
        """All positions, in teacher forcing."""
        c, r, cell = self.config, self.config.recurrent, CELLS[self.config.family]
        (B, T, _), R, N, mask_BS = x.shape, r.d_hidden, len(self.layers), memory.segments > 0
        record = self.is_mutable_collection("attention") and not self.is_initializing()
        specs, weights, constants = self.products(self.prepare(memory.hidden), x.dtype)
        shapes = {f"input_{number}": (T, B, R) for number in range(1, N)}
        shapes |= {f"state_{number}": (T, B, R) for number in range(N)}
        masks = keeps(self, c, {**shapes, "readout": (T, B, output_width(c))})

        x_TBD = jnp.moveaxis(x, 1, 0)
        if r.attention in ADDITIVE or r.input_feeding:
            shares = jax.tree.map(lambda x: x[:, :, None], self.inputs(x_TBD))
            init = jax.tree.map(lambda x: x[:, None], init)
            masks = {name: mask[:, :, None] for name, mask in masks.items()}
            new, same = masks, {}
            if r.variational_dropout:
                new, same = {}, {name: mask[0] for name, mask in masks.items()}
            added: dict[str, Any] = {"recurrent_0": shares[0]}
            steps = Step(shares[1], added, new, constants, (mask_BS, same))
            body = functools.partial(position, c, x.dtype, record)
            carry = init, nothing_fed(c, B, 1, x.dtype)
            _, (out, looked) = recur(body, specs, weights, carry, steps, unroll=r.unroll)
            out_BTD = jnp.moveaxis(out[:, :, 0], 0, 1)
            looked_BTS = jnp.moveaxis(looked[:, :, 0], 0, 1) if record else None
        else:  # nothing read comes back: layer by layer, then all positions read at once
            for number, layer in enumerate(self.layers):
                x_TBD = masked(x_TBD, masks, f"input_{number}")
                own, keep = layer.weights(x.dtype), masks.get(f"state_{number}")
                state = init[number]
                _, x_TBD = run_layer(cell, own, x_TBD, state, None, keep, unroll=r.unroll)
            h_BTR, product = jnp.moveaxis(x_TBD, 0, 1), multiply(specs, weights)
            here = Step(constants=constants, fixed=(mask_BS, {}))
            context, looked_BTS = look(c, product, h_BTR, here)
            masks = {name: jnp.moveaxis(mask, 0, 1) for name, mask in masks.items()}
            out_BTD = masked(read(product, h_BTR, context), masks, "readout")
        if looked_BTS is not None and record:
            self.cross_attention.record(looked_BTS)
        return constrain(out_BTD, "batch", None, "hidden")
