"""What the Transformer replaced: encoders and decoders that read and write one word after another.

Families `rnn`, `gru` and `lstm` (cells.py), without attention (Sutskever et al. 2014; Cho et al.
2014) or with an alignment (alignment.py). A stack's input products run for all positions at once,
before the loop; in the loop is only what depends on the position before (recurrence.py).

The decoder starts from the encoder's last states, layer by layer. Its hidden state is
tanh(W [context; h]) (Luong et al., Eq. 5), without attention tanh(W h).
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from transformer.batch import Source, Target
from transformer.config import ModelConfig
from transformer.errors import UserError
from transformer.models.dropout import Dropout
from transformer.models.embedding import Embedding
from transformer.models.precision import compute_dtype
from transformer.models.recurrent.alignment import ADDITIVE, KINDS
from transformer.models.recurrent.cells import CELLS
from transformer.models.recurrent.layer import Carry, nothing_fed, output_width
from transformer.models.recurrent.recurrence import Step, multiply
from transformer.models.recurrent.stacks import Decoder, Encoder, position
from transformer.models.seq2seq import Cache, Memory, Seq2Seq, pick_parents
from transformer.sharding import constrain, current


@struct.dataclass
class RecurrentCache(Cache):
    """What a recurrent decoder carries from one position to the next.

    Attributes:
        alignment: what attention has computed of the memory.
        states: each hypothesis's states, [N, B, W, R] each.
        fed: with input feeding, each hypothesis's last attentional state, [B, W, D]; else ().
    """

    alignment: Any
    states: Any
    fed: Any

    def reorder(self, parents_BW: Int[Array, "B W"]) -> Self:
        pick = lambda axis: lambda leaf: pick_parents(leaf, parents_BW, axis)  # noqa: E731
        states, fed = jax.tree.map(pick(2), self.states), jax.tree.map(pick(1), self.fed)
        return self.replace(states=states, fed=fed)  # pyright: ignore

    @property
    def per_source(self) -> Any:
        return self.alignment

    @property
    def per_hypothesis(self) -> Any:
        return self.states, self.fed


class Recurrent(Seq2Seq):
    """The families rnn, gru and lstm."""

    @property
    def takes_packed_rows(self) -> bool:
        return False  # a state would pass from one sentence to the next

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
        if (key := config.only_transformers()) is not None:
            return f"{family} has no layers of attention: leave model.{key} at its default"
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
        alignment = self.decoder.prepare(memory.hidden)
        return RecurrentCache(jnp.zeros((), jnp.int32), memory.segments, alignment, states, fed)

    def step(
        self, tokens: Int[Array, "B W"], cache: RecurrentCache
    ) -> tuple[Float[Array, "B W Q"], Cache]:
        x_BWD = self.dropout(self.embedding(tokens))
        specs, weights, constants = self.decoder.products(cache.alignment, x_BWD.dtype)
        carry = by_layer(cache.states), cache.fed
        added, apart = self.decoder.inputs(x_BWD)
        here = Step(apart, {}, {}, constants, (cache.segments > 0, {}))
        product = multiply(specs, weights, {"recurrent_0": added})
        (after, fed), (out_BWD, _) = position(self.config, x_BWD.dtype, False, product, carry, here)
        states = tuple(jnp.stack(parts) for parts in zip(*after, strict=True))
        return out_BWD, cache.replace(index=cache.index + 1, states=states, fed=fed)  # pyright: ignore


def by_layer(states: tuple[Array, ...]) -> Carry:
    """A state for each layer, from arrays [N, ...]."""
    return tuple(tuple(x[n] for x in states) for n in range(len(states[0])))
