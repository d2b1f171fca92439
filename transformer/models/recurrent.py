"""What the Transformer replaced: encoders and decoders that read and write one word after another.

Families `rnn`, `gru` and `lstm` (cells.py), without attention (Sutskever et al. 2014; Cho et al.
2014) or with an alignment (alignment.py). A stack's input products run for all positions at once,
before the loop; in the loop is only what depends on the position before (recurrence.py).

The decoder starts from the encoder's last states, layer by layer. Its hidden state is
tanh(W [context; h]) (Luong et al., Eq. 5), without attention tanh(W h).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from transformer.batch import Source, Target
from transformer.config import ModelConfig
from transformer.errors import UserError
from transformer.models.alignment import ADDITIVE, KINDS, SPECS, Alignment, align
from transformer.models.cells import CELLS, Cell, State
from transformer.models.layers import Dropout, Embedding, compute_dtype, kept, xavier
from transformer.models.recurrence import Product, Step, Weight, multiply, multiply_all, recur
from transformer.models.seq2seq import Cache, Memory, Seq2Seq
from transformer.sharding import constrain, current, parameter

Carry = tuple[State, ...]  # every layer's state
Keeps = dict[str, Array]
Shares = tuple[Array | None, Array | None]
GATES = "BWD,DZR->BWZR"  # every product that gives gates, W rows of a sentence at a time


def orthogonal_gates(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """[R, Z, R], each gate's block orthogonal: states neither fade nor grow (Saxe et al. 2014)."""
    R, Z, _ = shape
    block = nn.initializers.orthogonal()
    return jnp.stack([block(k, (R, R), dtype) for k in jax.random.split(key, Z)], axis=1)


def output_width(config: ModelConfig) -> int:
    """Of what the output projection reads: the embeddings' where the table is the same."""
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
        """Its products, for `recur`: of the input, of the state, of what is fed."""
        cell = CELLS[self.config.family]
        own = lambda x: constrain(x.astype(dtype), None, "gates", "state")  # noqa: E731
        found = {
            "input": Weight(own(self.input)),
            # Of the two products, the one in whose loop adding it costs nothing.
            "recurrent": Weight(own(self.recurrent), self.bias.astype(dtype)),
        }
        if cell.apart is not None:
            bias_ZR, inner_ZR = jnp.zeros((2, cell.gates, self.width), dtype)
            bias_ZR = bias_ZR.at[cell.apart].set(self.bias[cell.apart].astype(dtype))
            inner_ZR = self.bias.astype(dtype).at[cell.apart].set(self.inner_bias.astype(dtype))
            found["input"] = Weight(own(self.input), bias_ZR)
            found["recurrent"] = Weight(own(self.recurrent), inner_ZR)
        if self.fed:
            found["feed"] = Weight(own(self.feed))
        return found


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
    kernel, bias = layer["input"]
    x_TBZR = multiply_all("TBD,DZR->TBZR", x_TBD, kernel)
    if bias is not None:
        x_TBZR = x_TBZR + bias[None, None]
    added_TBZR, apart_TBR = cell.shares(x_TBZR)

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
    return tuple(jnp.zeros(shape, jnp.float32) for _ in range(cell.states))


def keeps(module: nn.Module, config: ModelConfig, shapes: dict[str, Any]) -> Keeps:
    """Dropout's masks by name, of shapes [T, B, ...]; variational ones are of one T for all.

    Those of a state ("state_0" ...) there are only with variational dropout (Gal and Ghahramani
    2016); without it only what is not recurrent is dropped (Zaremba et al. 2014).
    """
    found = {}
    for name, shape in shapes.items():
        if config.recurrent.variational_dropout:
            shape = (1, *shape[1:])
        elif name.startswith("state"):
            continue
        mask = kept(module, config.dropout, shape)
        if mask is not None:
            found[name] = mask.astype(jnp.float32) / (1.0 - config.dropout)
    return found


def masked(x: Array, masks: Keeps, name: str) -> Array:
    return x * masks[name].astype(x.dtype) if name in masks else x


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
        """From [S, B, D] and [S, B]: the last layer's outputs, each layer's last state."""
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
        """The words' shares of the first layer's gates."""
        own = self.layers[0].weights(x.dtype)
        return CELLS[self.config.family].shares(multiply({"input": GATES}, own)("input", x))

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

        if r.attention in ADDITIVE or r.input_feeding:
            shares = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], self.inputs(x))
            init = jax.tree.map(lambda x: x[:, None], init)
            masks = {name: mask[:, :, None] for name, mask in masks.items()}
            new, same = masks, {}
            if r.variational_dropout:
                new, same = {}, {name: mask[0] for name, mask in masks.items()}
            added = {"recurrent_0": shares[0]}
            steps = Step(shares[1], added, new, constants, (mask_BS, same))
            body = functools.partial(position, c, x.dtype, record)
            carry = init, nothing_fed(c, B, 1, x.dtype)
            _, (out, looked) = recur(body, specs, weights, carry, steps, unroll=r.unroll)
            out_BTD = jnp.moveaxis(out[:, :, 0], 0, 1)
            looked_BTS = jnp.moveaxis(looked[:, :, 0], 0, 1) if record else None
        else:  # nothing read comes back: layer by layer, then all positions read at once
            x_TBD = jnp.moveaxis(x, 1, 0)
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


class Recurrent(Seq2Seq):
    """The families rnn, gru and lstm."""

    takes_packed_rows = False  # a state would pass from one sentence to the next

    @classmethod
    def unsupported(cls, config: ModelConfig) -> str | None:
        r, family = config.recurrent, f"model.family={config.family}"
        if r.attention not in KINDS:
            return f"model.recurrent.attention is {r.attention!r}; choose one of {', '.join(KINDS)}"
        if config.encoder_layers != config.decoder_layers:
            return (
                f"{family} starts each decoder layer from an encoder layer's state: make "
                f"model.decoder_layers = model.encoder_layers (they are {config.decoder_layers} "
                f"and {config.encoder_layers})"
            )
        if r.input_feeding and not r.attention.startswith("luong"):
            return (
                "model.recurrent.input_feeding feeds Luong's attentional state back; with "
                f"model.recurrent.attention={r.attention} set it to False"
            )
        if config.remat != "none":
            return f"{family} does not recompute activations: set model.remat=none"
        if config.attention.backend != "auto":
            return f"{family} has no multi-head attention: leave model.attention.backend at auto"
        return None

    @classmethod
    def flops_per_token(cls, config: ModelConfig, length: int) -> float:
        """Every multiply-add of a matrix product counts 2; cells, softmax and lookups nothing."""
        c, r, gates = config, config.recurrent, CELLS[config.family].gates
        R, out, N = r.d_hidden, output_width(c), config.decoder_layers
        directions = 2 if r.bidirectional else 1
        inputs = (c.d_model + (N - 1) * R) * gates * R
        encoder = inputs + N * gates * R * R / directions
        decoder = inputs + N * gates * R * R + R * out + out * c.vocab_size
        if r.attention != "none":
            decoder += R * out + 2 * length * R
            encoder += R * R * (r.attention != "luong_dot")
        if r.attention in ADDITIVE:
            decoder += R * R
        if r.attention == "bahdanau":
            decoder += R * gates * R
        if r.input_feeding:
            decoder += out * gates * R
        return 2.0 * (encoder + decoder)

    def setup(self) -> None:
        c = self.config
        self.embedding = Embedding(c, output_width(c))
        self.dropout = Dropout(c.dropout)
        self.encoder, self.decoder = Encoder(c), Decoder(c)

    def encode(self, source: Source) -> Memory:
        if current().split("length") > 1:
            raise UserError(
                f"mesh.sequence splits the length, which model.family={self.config.family} reads "
                "one position after another: set mesh.sequence=1"
            )
        x_BSD = self.dropout(self.embedding.source(source.ids))
        valid_BS = source.segments > 0
        out_SBR, finals = self.encoder(jnp.moveaxis(x_BSD, 1, 0), valid_BS.T)
        final = tuple(jnp.stack(parts) for parts in zip(*finals, strict=True))  # [N, B, R]
        hidden_BSR = constrain(jnp.moveaxis(out_SBR, 0, 1), "batch", "length", "hidden")
        return Memory(hidden_BSR, source.positions, source.segments, final)

    def decode(self, target: Target, memory: Memory) -> Float[Array, "B T Q"]:
        x_BTD = self.dropout(self.embedding(target.ids))
        return self.decoder(x_BTD, by_layer(memory.final), memory)

    def logits(self, hidden: Float[Array, "B T Q"]) -> Float[Array, "B T V"]:
        return self.embedding.logits(hidden)

    def init_cache(self, memory: Memory, length: int, beams: int) -> Cache:
        c, dtype = self.config, compute_dtype(self.config)
        shape = lambda x: (*x.shape[:2], beams, *x.shape[2:])  # noqa: E731
        states = tuple(jnp.broadcast_to(x[:, :, None], shape(x)) for x in memory.final)
        fed = nothing_fed(c, memory.hidden.shape[0], beams, dtype)
        state = states, jax.tree.map(lambda x: x[None], fed)
        prepared = self.decoder.prepare(memory.hidden)
        return Cache(jnp.zeros((), jnp.int32), memory.segments, prepared, state)

    def step(self, tokens: Int[Array, "B W"], cache: Cache) -> tuple[Float[Array, "B W Q"], Cache]:
        x_BWD = self.dropout(self.embedding(tokens))
        specs, weights, constants = self.decoder.products(cache.fixed, x_BWD.dtype)
        states, fed = cache.state
        carry = by_layer(states), jax.tree.map(lambda x: x[0], fed)
        added, apart = self.decoder.inputs(x_BWD)
        here = Step(apart, {}, {}, constants, (cache.segments > 0, {}))
        product = multiply(specs, weights, {"recurrent_0": added})
        (after, fed), (out_BWD, _) = position(self.config, x_BWD.dtype, False, product, carry, here)
        states = tuple(jnp.stack(parts) for parts in zip(*after, strict=True))
        state = states, jax.tree.map(lambda x: x[None], fed)
        return out_BWD, cache.replace(index=cache.index + 1, state=state)  # pyright: ignore


def by_layer(states: tuple[Array, ...]) -> Carry:
    """A state for each layer, from arrays [N, ...]."""
    return tuple(tuple(x[n] for x in states) for n in range(len(states[0])))
