"""What a MarianMTModel's JSON files say, in our terms; what we cannot be or do is refused."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from transformer.config import DecodingConfig, ModelConfig, PositionsConfig
from transformer.errors import UserError
from transformer.interop.generation_keys import CONFIG, GENERATION, TABLE, merged, unknown

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "swish": "silu", "silu": "silu"}  # ours by theirs
DEFAULTS = {  # MarianConfig's and `generate`'s, for what may be left out
    "activation_function": "gelu",
    "scale_embedding": False,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "num_beams": 1,
    "length_penalty": 1.0,
}
FIXED = {  # what other values would mean, our Transformer has no part for; absent is the same
    "normalize_embedding": False,
    "normalize_before": False,
    "add_final_layer_norm": False,
    "static_position_embeddings": True,
    "is_encoder_decoder": True,
    "tie_encoder_decoder": False,
    "pruned_heads": {},
    "quantization_config": None,
}
EPSILON = 1e-5  # of torch.nn.LayerNorm
LARGE = 1e6  # no exponent of a length, and no rate, comes near


class Keys:
    """config.json and generation_config.json, read with a reason for what is refused."""

    def __init__(self, config: Mapping[str, Any], generation: Mapping[str, Any] | None = None):
        """Refuses another kind of model, and what `generate` would do and we cannot.

        Args:
            config: the keys of config.json.
            generation: of generation_config.json; None: there is no such file.
        """
        self._config = {**DEFAULTS, **merged(config, generation)}
        self._elsewhere = generation is not None
        kind = config.get("model_type")
        if kind != "marian":
            raise UserError(f"model_type is {kind!r}; only marian's weights are read here")
        for key, value in FIXED.items():
            self.require(key, config.get(key, value) == value, f"{value} is all that we can do")
        for key, value in unknown(generation).items():
            raise UserError(
                f"{GENERATION}: {key} is {value!r}; no transformers known here has such a key: "
                "delete it if it changes no output"
            )
        for key, rule in TABLE.items():
            value = self.said(key)
            if value is None or rule.neutral is None or value in rule.neutral:
                continue
            if key == "early_stopping" and self.whole("num_beams") == 1:
                continue
            neutral = ", ".join(map(repr, rule.neutral)) + " or " * bool(rule.neutral)
            self.require(key, False, f"{neutral}its absence is all that our searches do")

    def get(self, key: str) -> Any:
        if key not in self._config:
            file = self._file(key)
            why = (
                "fetch it again" if file == CONFIG else f"{CONFIG}'s does not count: write it there"
            )
            raise UserError(f"{file} has no {key}; {why}")
        return self._config[key]

    def said(self, key: str) -> Any:
        """None where it is not."""
        return self._config.get(key)

    def whole(self, key: str, least: int = 1) -> int:
        value = self.get(key)
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        self.require(key, good, f"it must be a whole number from {least} on")
        return value

    def number(self, key: str) -> float:
        value = self.get(key)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        self.require(key, good and abs(value) < LARGE, "it must be a number, and not a huge one")
        return float(value)

    def same(self, key: str) -> int:
        """A key's value, which encoder and decoder must share."""
        ours, theirs = (self.whole(f"{side}_{key}") for side in ("encoder", "decoder"))
        self.require(f"decoder_{key}", ours == theirs, f"the encoder's is {ours}: we have but one")
        return ours

    def require(self, key: str, good: bool, why: str) -> None:
        if not good:
            raise UserError(f"{self._file(key)}: {key} is {self.said(key)!r}; {why}")

    def _file(self, key: str) -> str:
        return GENERATION if self._elsewhere and key in TABLE else CONFIG


def model_config(keys: Keys) -> ModelConfig:
    """Ours; what training alone would read is as in AIAYN, but for Marian's rates of dropout."""
    D, H, V = keys.whole("d_model"), keys.same("attention_heads"), keys.whole("vocab_size")
    keys.require("d_model", D % H == 0, f"{H} heads do not divide it")
    keys.require("d_model", D % 2 == 0, "its positions need an even width")
    target = keys.said("decoder_vocab_size")
    keys.require(
        "decoder_vocab_size", target in (None, V), f"vocab_size is {V}: we have one for both sides"
    )
    activation = keys.get("activation_function")
    keys.require(
        "activation_function", activation in ACTIVATIONS, f"choose one of {', '.join(ACTIVATIONS)}"
    )
    tied = "three_way" if keys.get("share_encoder_decoder_embeddings") else "two_way"
    return ModelConfig(
        encoder_layers=keys.whole("encoder_layers"),
        decoder_layers=keys.whole("decoder_layers"),
        d_model=D,
        d_ff=keys.same("ffn_dim"),
        heads=H,
        d_k=D // H,
        d_v=D // H,
        dropout=keys.number("dropout"),
        attention_dropout=keys.number("attention_dropout"),
        norm_epsilon=EPSILON,
        feed_forward=ACTIVATIONS[activation],
        attention_bias=True,
        tied=tied if keys.get("tie_word_embeddings") else "none",
        scale_embeddings=bool(keys.get("scale_embedding")),
        logits_bias=True,
        positions=PositionsConfig(
            scheme="sinusoidal_halves", length=keys.whole("max_position_embeddings")
        ),
        vocab_size=V + 1,
    )


def ids_of(keys: Keys) -> Int[np.ndarray, " V"]:
    """Marian's id of each of ours: see the module."""
    size = keys.whole("vocab_size")
    names = ("pad_token_id", "decoder_start_token_id", "eos_token_id")
    pad, start, eos = special = [keys.whole(name, least=0) for name in names]
    for name, value in zip(names, special, strict=True):
        keys.require(name, value < size, f"the vocabulary has {size} rows")
    keys.require("eos_token_id", eos != pad, "the padding is the same")
    forced = keys.said("forced_eos_token_id")
    why = f"{eos} is all that our searches do, at the limit (where that will do, write it there)"
    keys.require("forced_eos_token_id", forced == eos, why)
    banned = keys.said("bad_words_ids")
    why = f"{[[pad]]} is all that our searches do"
    keys.require("bad_words_ids", banned in (None, [[pad]]), why)
    others = [i for i in range(size) if i not in (pad, eos)]
    return np.array([pad, start, eos, *others], np.int32)


def never_the_padding(keys: Keys, out_of_reach: bool) -> None:
    """Refuses a model that may say the padding, as none of our searches does.

    Args:
        keys: the model's.
        out_of_reach: whether its own bias forbids the padding already.
    """
    is_named = keys.said("bad_words_ids") is not None
    pad = keys.whole("pad_token_id", least=0)
    why = f"{[[pad]]} is all that our searches do (where that will do, write it there)"
    keys.require("bad_words_ids", is_named or out_of_reach, why)


def decoding_of(keys: Keys) -> DecodingConfig:
    """What the files say of searching."""
    alpha = keys.number("length_penalty")
    return DecodingConfig(beam=keys.whole("num_beams"), length_penalty="power", alpha=alpha)


def longest_output(keys: Keys) -> int:
    """Tokens of an output at most, `</s>` included."""
    positions = keys.whole("max_position_embeddings")
    if keys.said("max_new_tokens") is not None:
        return min(keys.whole("max_new_tokens"), positions)
    if keys.said("max_length") is not None:
        return min(keys.whole("max_length", least=2) - 1, positions)
    return positions
