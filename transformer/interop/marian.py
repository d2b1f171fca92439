"""Hugging Face's MarianMTModel as our Transformer: the same function, of the very weights.

    translator = Translator.from_marian("opus-mt-es-en")

Ids: ours are PAD, BOS, EOS, then all that are left of theirs, in their order. Marian has no BOS: it
starts from `decoder_start_token_id`, as a rule its padding. So our vocabulary has one row more,
BOS's, with the vector that Marian starts from; a bias keeps it out of the softmax.

Searches: what a model's files ask of `generate` is served or refused (generation_keys.py). Greedy
search says what `generate` says, and never the padding (Marian's `bad_words_ids`). Beam search may
differ in three things (see decoding/beam.py): where a hypothesis ends, `generate` gives its place
in the beam to the next candidate, and we to none; an end that the limit of the length forces costs
nothing there, and here what the model says; and with `early_stopping` false `generate` may stop
while a live hypothesis could still win. Where the files name no `max_length`, a bare `generate()`
stops at 20 tokens, and we do not.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from transformer.batch import BOS, EOS, PAD
from transformer.config import DecodingConfig, ModelConfig
from transformer.decoding.input_shapes import InputShapes
from transformer.errors import UserError
from transformer.interop.folders import read_json, read_weights
from transformer.interop.generation_keys import CONFIG, GENERATION
from transformer.interop.marian_keys import (
    Keys,
    decoding_of,
    ids_of,
    longest_output,
    model_config,
    never_the_padding,
)

# A table's name, and where there is none, that of one that is the same.
SHARED = (
    "model.shared.weight",
    "model.decoder.embed_tokens.weight",
    "model.encoder.embed_tokens.weight",
    "lm_head.weight",
)
SOURCE = ("model.encoder.embed_tokens.weight", "model.shared.weight")
TARGET = ("model.decoder.embed_tokens.weight", "model.shared.weight", "lm_head.weight")
NEVER = -1e9  # as a logit's bias: probability 0

Tree = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Imported:
    """A model in our terms.

    Attributes:
        config: what `build_model` takes; computes in the device's dtype ("auto").
        params: its collection "params": NumPy's float32 arrays.
        theirs_of: int32 [V]; their id of each of ours: of PAD their padding, of BOS where their
            decoder starts.
        ours_of: int32 [V - 1]; our id of each of theirs.
        decoding: how its files say to search.
        shapes: the lengths that Marian takes, of source and of target.
    """

    config: ModelConfig
    params: Tree
    theirs_of: Int[np.ndarray, " V"]
    ours_of: Int[np.ndarray, " M"]
    decoding: DecodingConfig
    shapes: InputShapes


def load(folder: str | os.PathLike[str]) -> Imported:
    """The model of a folder that `MarianMTModel.save_pretrained` wrote.

    Raises:
        UserError: a file is missing or damaged, or it is a model that we cannot be.
    """
    folder = Path(folder)
    config, path = read_json(folder / CONFIG), folder / GENERATION
    generation = read_json(path) if path.exists() else None
    weights = read_weights(folder)
    try:
        return convert(config, weights, generation)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error


def convert(
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    generation: Mapping[str, Any] | None = None,
) -> Imported:
    """A model from what is in memory.

    Args:
        config: the keys of config.json.
        weights: `MarianMTModel.state_dict()` as NumPy arrays of any float. Of tables that are one,
            one is enough.
        generation: the keys of generation_config.json; None: it does not exist, and config.json
            has those keys.

    Raises:
        UserError: a key says what we cannot do, or a tensor is missing, unknown, of a shape that
            the keys do not say, or other than one that it is tied to.
    """
    keys = Keys(config, generation)
    ours, theirs_of = model_config(keys), ids_of(keys)
    ours_of = np.empty(len(theirs_of) - 1, np.int32)
    ours_of[theirs_of[EOS:]] = np.arange(EOS, len(theirs_of))
    ours_of[theirs_of[PAD]] = PAD
    max_length = keys.whole("max_position_embeddings")
    _refuse_torn_tables(keys, weights)
    tensors = _Tensors(weights, ours, max_length)
    params = {
        "embedding": _embedding(tensors, ours, theirs_of, bool(keys.said("renormalize_logits"))),
        "encoder": _stack([tensors.layer("encoder", i) for i in range(ours.encoder_layers)]),
        "decoder": _stack([tensors.layer("decoder", i) for i in range(ours.decoder_layers)]),
    }
    tensors.refuse_others()
    padding_bias = np.float32(weights["final_logits_bias"][0, theirs_of[PAD]])
    never_the_padding(keys, out_of_reach=bool(padding_bias <= NEVER))
    shapes = InputShapes(max_length=max_length, max_output_length=longest_output(keys))
    return Imported(ours, params, theirs_of, ours_of, decoding_of(keys), shapes)


class _Tensors:
    """A Marian model's arrays, each taken once, as our parameters."""

    def __init__(self, weights: Mapping[str, np.ndarray], config: ModelConfig, max_length: int):
        self._left, self._config, self._max_length = dict(weights), config, max_length

    def take(self, name: str, *shape: int) -> Float[np.ndarray, "..."]:
        """A tensor that must have this shape, as float32."""
        if name not in self._left:
            raise UserError(f"the weights have no {name}, which config.json asks for")
        # A table may be asked for twice: `refuse_others` knows it.
        tensor = self._left[name] if name in SHARED else self._left.pop(name)
        if tensor.shape != shape:
            raise UserError(f"{name} has the shape {tensor.shape}; config.json says {shape}")
        return np.asarray(tensor, np.float32)

    def first(self, *names: str) -> str:
        """The first of these names that is there; where none is, the first of all."""
        return next((name for name in names if name in self._left), names[0])

    def layer(self, side: str, number: int) -> Tree:
        """A layer's parameters, before they are stacked."""
        c, path = self._config, f"model.{side}.layers.{number}"
        tree = {
            "self_attention": self._attention(f"{path}.self_attn"),
            "feed_forward": {
                "up": self.take(f"{path}.fc1.weight", c.d_ff, c.d_model).T,
                "up_bias": self.take(f"{path}.fc1.bias", c.d_ff),
                "down": self.take(f"{path}.fc2.weight", c.d_model, c.d_ff).T,
                "down_bias": self.take(f"{path}.fc2.bias", c.d_model),
            },
            "self_attention_residual": self._norm(f"{path}.self_attn_layer_norm"),
            "feed_forward_residual": self._norm(f"{path}.final_layer_norm"),
        }
        if side == "decoder":
            tree["cross_attention"] = self._attention(f"{path}.encoder_attn")
            tree["cross_attention_residual"] = self._norm(f"{path}.encoder_attn_layer_norm")
        return tree

    def _norm(self, path: str) -> Tree:
        D = self._config.d_model
        return {
            "norm": {"scale": self.take(f"{path}.weight", D), "bias": self.take(f"{path}.bias", D)}
        }

    def _attention(self, path: str) -> Tree:
        """Turns their matrices, [out, in], into ours: [D, H, K] into heads, [H, K, D] out."""
        c = self._config
        D, H, K = c.d_model, c.heads, c.d_k
        tree = {
            "output": self.take(f"{path}.out_proj.weight", D, D).T.reshape(H, K, D),
            "output_bias": self.take(f"{path}.out_proj.bias", D),
        }
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v")):
            matrix_DD = self.take(f"{path}.{theirs}_proj.weight", D, D).T
            tree[ours] = matrix_DD.reshape(D, H, K)
            tree[f"{ours}_bias"] = self.take(f"{path}.{theirs}_proj.bias", D).reshape(H, K)
        return tree

    def refuse_others(self) -> None:
        """What is left must be tables that are another's, or Marian's positions themselves."""
        c = self._config
        sides = ("model.encoder", "model.decoder")
        positions_PD = _positions(self._max_length, c.d_model)
        for name in [f"{side}.embed_positions.weight" for side in sides]:
            if name in self._left:
                table_PD = self.take(name, *positions_PD.shape)
                if not np.allclose(table_PD, positions_PD, atol=1e-2):  # bfloat16's half step
                    raise UserError(f"{name} is not made of Marian's sinusoids: we have no others")
        for name in SHARED:
            self._left.pop(name, None)
        if self._left:
            name = min(self._left)
            raise UserError(f"{name} is no tensor of a MarianMTModel ({len(self._left)} such)")


def _embedding(
    tensors: _Tensors, c: ModelConfig, theirs_of: np.ndarray, renormalized: bool
) -> Tree:
    """Tables by our ids, and the logits' biases."""

    def table(*names: str) -> Float[np.ndarray, "V D"]:
        return tensors.take(tensors.first(*names), len(theirs_of) - 1, c.d_model)[theirs_of]

    bias_V = tensors.take("final_logits_bias", 1, len(theirs_of) - 1)[0, theirs_of]
    bias_V[[BOS, PAD] if renormalized else BOS] = NEVER
    tree = {"output_bias": bias_V, "table": table(*(TARGET if c.tied != "three_way" else SHARED))}
    if c.tied != "three_way":
        tree["source_table"] = table(*SOURCE)
    if c.tied == "none":
        tree["output_table"] = table("lm_head.weight")
    return tree


def _refuse_torn_tables(keys: Keys, weights: Mapping[str, np.ndarray]) -> None:
    """Refuses tables that the keys say are one and that are stored with different numbers.

    Which of them counts is another thing in each release of transformers. Without
    tie_word_embeddings none are one, whatever else is said: release 5 takes each as it is stored.
    """
    shared, target, source, output = SHARED
    inputs, outputs = "share_encoder_decoder_embeddings", "tie_word_embeddings"
    if not keys.get(outputs):
        return
    one = [shared, target, source, output] if keys.get(inputs) else [target, output]
    first, *others = [name for name in one if name in weights] or [shared]
    for name in others:
        if not np.array_equal(weights[first], weights[name]):
            raise UserError(
                f"{first} and {name} differ, but {CONFIG} says that they are one "
                f"({outputs if name == output else inputs}): set that to false to have each table "
                "as it is stored, or leave out the one that does not count"
            )


def _positions(length: int, width: int) -> Float[np.ndarray, "P D"]:
    """Marian's table: sines, then cosines."""
    place_P1, even_E = np.arange(length)[:, None], np.arange(0, width, 2)
    angles_PE = place_P1 / np.power(10_000.0, even_E / width)
    return np.concatenate([np.sin(angles_PE), np.cos(angles_PE)], axis=1)


def _stack(layers: list[Tree]) -> Tree:
    """Trees of one shape as one, with an axis N before the others."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *layers)
