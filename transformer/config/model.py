"""What the model is."""

import math
from dataclasses import dataclass

from transformer.config.checks import at_most, fraction, not_negative, one_of, positive, require

SCHEMES = (
    "sinusoidal",
    "sinusoidal_halves",
    "learned",
    "rotary",
    "t5",
    "shaw",
    "alibi",
    "none",
)
INITIALIZERS = (
    "xavier_uniform",
    "xavier_normal",
    "lecun_normal",
    "he_normal",
    "normal",
    "gpt2",
)
MOST_LAYERS, WIDEST = 10_000, 2**24  # beyond any machine, and still counted without trouble
READOUTS = ("position", "class", "mean")
REMAT = ("none", "full", "dots_saveable", "dots_with_no_batch_dims_saveable")
# What only a Transformer's layers read, at the values that say nothing.
PLAIN = {
    "kv_heads": 0,
    "attention_dropout": 0.0,
    "layer_drop": 0.0,
    "norm": "post",
    "norm_function": "layer_norm",
    "qk_norm": False,
    "sublayers": "sequential",
    "feed_forward": "relu",
    "feed_forward_bias": True,
    "attention_bias": False,
    "initializer": "xavier_uniform",
    "width_scaling": "none",
}


@dataclass(frozen=True)
class PositionsConfig:
    scheme: str
    length: int
    rotary_base: float
    t5_buckets: int
    t5_max_distance: int
    shaw_clip: int

    def __post_init__(self) -> None:
        one_of("model.positions.scheme", self.scheme, SCHEMES)
        positive("model.positions", self, "length", "t5_max_distance", "shaw_clip")
        require(
            1.0 < self.rotary_base < math.inf,
            f"model.positions.rotary_base is {self.rotary_base}; it must be above 1, and finite",
        )
        require(
            self.t5_buckets >= 4 and self.t5_buckets % 4 == 0,
            f"model.positions.t5_buckets is {self.t5_buckets}; half of them are for each direction "
            "and half of these exact: take a multiple of 4",
        )
        require(
            self.t5_max_distance > self.t5_buckets // 2,
            f"model.positions.t5_max_distance is {self.t5_max_distance}, not above the "
            f"{self.t5_buckets // 2} distances that have a bucket each",
        )


@dataclass(frozen=True)
class AttentionConfig:
    backend: str


@dataclass(frozen=True)
class RecurrentConfig:
    d_hidden: int
    bidirectional: bool
    attention: str
    input_feeding: bool
    variational_dropout: bool
    unroll: int

    def __post_init__(self) -> None:
        positive("model.recurrent", self, "d_hidden", "unroll")
        at_most("model.recurrent", self, WIDEST, "d_hidden")
        require(
            self.d_hidden % 2 == 0 or not self.bidirectional,
            f"model.recurrent.d_hidden is {self.d_hidden}; both directions of the encoder share "
            f"it: take {self.d_hidden + 1}, or bidirectional=False",
        )


@dataclass(frozen=True)
class ModelConfig:
    family: str
    encoder_layers: int
    decoder_layers: int
    d_model: int
    d_ff: int
    heads: int
    kv_heads: int
    d_k: int
    d_v: int
    dropout: float
    attention_dropout: float
    layer_drop: float
    readout: str
    patch: int
    norm: str
    norm_function: str
    norm_epsilon: float
    qk_norm: bool
    sublayers: str
    feed_forward: str
    feed_forward_bias: bool
    attention_bias: bool
    tied: str
    scale_embeddings: bool
    logits_bias: bool
    logit_soft_cap: float
    initializer: str
    width_scaling: str
    base_d_model: int
    base_d_k: int
    dtype: str
    unroll: bool
    remat: str
    positions: PositionsConfig
    attention: AttentionConfig
    recurrent: RecurrentConfig
    vocab_size: int  # data.tokenizer.vocab_size: the one key that two sections share

    def __post_init__(self) -> None:
        positive("model", self, "encoder_layers", "decoder_layers", "d_model", "d_ff", "heads")
        positive("model", self, "d_k", "d_v", "norm_epsilon", "base_d_model", "base_d_k")
        not_negative("model", self, "kv_heads", "logit_soft_cap")
        at_most("model", self, MOST_LAYERS, "encoder_layers", "decoder_layers")
        at_most("model", self, WIDEST, "d_model", "d_ff", "heads", "kv_heads", "d_k", "d_v")
        for rate in ("dropout", "attention_dropout", "layer_drop"):
            fraction(f"model.{rate}", getattr(self, rate))
        one_of("model.readout", self.readout, READOUTS)
        positive("model", self, "patch")
        require(
            self.family == "encoder" or (self.readout == "position" and self.patch == 1),
            f"model.readout={self.readout} and model.patch={self.patch} are for "
            "model.family=encoder: leave them as in base.py",
        )
        one_of("model.norm", self.norm, ("post", "pre", "sandwich", "deepnorm"))
        one_of("model.norm_function", self.norm_function, ("layer_norm", "rms_norm"))
        one_of("model.sublayers", self.sublayers, ("sequential", "parallel"))
        one_of("model.feed_forward", self.feed_forward, ("relu", "gelu", "silu", "geglu", "swiglu"))
        one_of("model.tied", self.tied, ("three_way", "two_way", "none"))
        one_of("model.initializer", self.initializer, INITIALIZERS)
        one_of("model.width_scaling", self.width_scaling, ("none", "mup"))
        one_of("model.dtype", self.dtype, ("auto", "float32", "bfloat16"))
        one_of("model.remat", self.remat, REMAT)
        require(
            self.heads % self.key_value_heads == 0,
            f"model.kv_heads is {self.kv_heads}, which does not divide model.heads = {self.heads}: "
            "equal groups of query heads share a key/value head",
        )
        require(
            self.d_model % 2 == 0 or not self.positions.scheme.startswith("sinusoidal"),
            f"model.d_model is {self.d_model}; sinusoidal positions need an even width: "
            f"take {self.d_model + 1}",
        )
        require(
            self.d_k % 2 == 0 or self.positions.scheme != "rotary",
            f"model.d_k is {self.d_k}; rotary positions turn pairs: take {self.d_k + 1}",
        )

    @property
    def key_value_heads(self) -> int:
        """G; H where `kv_heads` is 0."""
        return self.kv_heads or self.heads

    def only_transformers(self) -> str | None:
        """A key set to what only a Transformer's layers could heed; None where there is none."""
        if self.positions.scheme not in ("sinusoidal", "none"):
            return "positions.scheme"
        return next((key for key, plain in PLAIN.items() if getattr(self, key) != plain), None)
