"""What the model is: the paper's base model by default."""

import math
from dataclasses import dataclass

from transformer.config.data import TokenizerConfig
from transformer.config.fields import (
    Section,
    checked,
    choice,
    fraction,
    not_negative,
    one_of,
    positive,
    require,
)

SCHEMES = ("sinusoidal", "sinusoidal_halves", "learned", "rotary", "t5", "shaw", "alibi", "none")
REMAT = ("none", "full", "dots_saveable", "dots_with_no_batch_dims_saveable")
MOST_LAYERS, WIDEST = 10_000, 2**24  # beyond any machine, and still counted without trouble


def _rotary_base(key: str, value: float) -> None:
    require(1.0 < value < math.inf, f"{key} is {value}; it must be above 1, and finite")


def _t5_buckets(key: str, value: int) -> None:
    require(
        value >= 4 and value % 4 == 0,
        f"{key} is {value}; half of them are for each direction and half of these exact: take a "
        "multiple of 4",
    )


@dataclass(frozen=True)
class PositionsConfig(Section, section="model.positions"):
    """Positional encoding."""

    scheme: str = one_of("sinusoidal", SCHEMES)
    """How positions are told apart.

    sinusoidal: sines and cosines in turn (AIAYN §3.5). sinusoidal_halves: sines, then cosines, as
    Marian has them (those of fairseq and tensor2tensor have other wavelengths). learned: a table a
    side (Gehring et al. 2017; Table 3, row E). none. In self-attention: rotary, RoPE (Su et al.
    2021); t5: a bias a bucket of distances, for all layers (Raffel et al. 2020); shaw: relative
    keys (Shaw et al. 2018); alibi (Press et al. 2022).
    """
    length: int = positive(306)
    """learned: positions of a table; all beyond share the last. data.max_length + extra_length."""
    rotary_base: float = checked(10_000.0, _rotary_base)
    """rotary: base of the geometric series of wavelengths."""
    t5_buckets: int = checked(32, _t5_buckets)
    """t5: buckets of distances."""
    t5_max_distance: int = positive(128)
    """t5: all distances beyond this many positions share the last bucket."""
    shaw_clip: int = positive(16)
    """shaw: all distances beyond this many positions share the last vector."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.t5_max_distance > self.t5_buckets // 2,
            f"model.positions.t5_max_distance is {self.t5_max_distance}, not above the "
            f"{self.t5_buckets // 2} distances that have a bucket each",
        )


@dataclass(frozen=True)
class AttentionConfig(Section, section="model.attention"):
    """How attention is computed, not what: it may change when a run goes on."""

    backend: str = "auto"
    """auto: the first of the table that serves on this device. reference, xla, chunked, cudnn,
    splash. Where mesh.sequence splits the length: ring, ulysses, each also with what a device runs:
    "ring:chunked"."""


@dataclass(frozen=True)
class RecurrentConfig(Section, section="model.recurrent"):
    """Keys of the families rnn, gru and lstm alone."""

    d_hidden: int = positive(512, most=WIDEST)
    """R, width of the state; of both directions together."""
    bidirectional: bool = True
    """Whether the encoder reads in both directions (Schuster and Paliwal 1997)."""
    attention: str = "luong_general"
    """none, bahdanau, luong_dot, luong_general, luong_concat."""
    input_feeding: bool = False
    """Whether the output before goes into the decoder's input (Luong et al. 2015, §3.3)."""
    variational_dropout: bool = False
    """One dropout mask for all positions, on states, too (Gal and Ghahramani 2016)."""
    unroll: int = positive(1)
    """Positions in one turn of the loop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.d_hidden % 2 == 0 or not self.bidirectional,
            f"model.recurrent.d_hidden is {self.d_hidden}; both directions of the encoder share "
            f"it: take {self.d_hidden + 1}, or bidirectional=False",
        )


@dataclass(frozen=True)
class ModelConfig(Section, section="model"):
    """A model's architecture; `recurrent` holds what only the recurrent families read."""

    family: str = "transformer"
    """transformer: encoder and decoder (AIAYN). decoder: a decoder alone, a language model with the
    source as its prompt (Radford et al. 2018); it has no encoder_layers. encoder: an encoder alone,
    its answer taken by `readout`; it has no decoder_layers. rnn, gru, lstm. Or "module:Class"."""
    encoder_layers: int = positive(6, most=MOST_LAYERS)
    """N of the encoder."""
    decoder_layers: int = positive(6, most=MOST_LAYERS)
    """N of the decoder."""
    d_model: int = positive(512, most=WIDEST)
    """D, the width."""
    d_ff: int = positive(2048, most=WIDEST)
    """F, width of the feed-forward network."""
    heads: int = positive(8, most=WIDEST)
    """H, attention heads."""
    kv_heads: int = not_negative(0, most=WIDEST)
    """G, key/value heads. 0: as many as heads. 1: one for all, multi-query attention (Shazeer
    2019). More: grouped-query attention (Ainslie et al. 2023)."""
    d_k: int = positive(64, most=WIDEST)
    """K, head size of queries and keys."""
    d_v: int = positive(64, most=WIDEST)
    """U, head size of values."""
    dropout: float = fraction(0.1)
    """P_drop: on each sub-layer's output and on embeddings + positions (AIAYN §5.4)."""
    attention_dropout: float = fraction(0.0)
    """Dropout on attention weights; none in the paper."""
    layer_drop: float = fraction(0.0)
    """Stochastic depth: probability of leaving a whole layer out of a step (Fan et al. 2020)."""
    readout: str = choice("position", "class", "mean")
    """encoder alone: what a target position is predicted from. position: the source's same one
    (masked language models, Devlin et al. 2019). class: a learned position before the source,
    "[CLS]". mean: of all positions. The last two are for labels."""
    patch: int = positive(1)
    """encoder alone: source tokens of one position, their vectors end to end and projected
    (Dosovitskiy et al. 2021, Eq. 1)."""
    norm: str = choice("post", "pre", "sandwich", "deepnorm")
    """The place of the norm. post: after the residual sum (AIAYN). pre: before the sub-layer (Xiong
    et al. 2020). sandwich: before and after it (Ding et al. 2021; "peri": Kim et al. 2025).
    deepnorm: post, residuals and initial values scaled by depth (Wang et al. 2022)."""
    norm_function: str = choice("layer_norm", "rms_norm")
    """layer_norm (AIAYN). rms_norm (Zhang and Sennrich 2019)."""
    norm_epsilon: float = positive(1e-6)
    """Added to the variance."""
    qk_norm: bool = False
    """Query-key norm: the norm function on each head's queries and keys (Henry et al. 2020)."""
    sublayers: str = choice("sequential", "parallel")
    """sequential (AIAYN). parallel: attention and feed-forward read the same input (Wang and
    Komatsuzaki 2021)."""
    feed_forward: str = choice("relu", "gelu", "silu", "geglu", "swiglu")
    """relu (AIAYN). gelu (Hendrycks and Gimpel 2016). silu (Elfwing et al. 2018). geglu, swiglu:
    gated (Shazeer 2020), with a third matrix: 2/3 of d_ff is as large."""
    feed_forward_bias: bool = True
    """Whether the feed-forward network has biases."""
    attention_bias: bool = False
    """Whether queries, keys, values and outputs have biases."""
    tied: str = choice("three_way", "two_way", "none")
    """Weight tying of source embedding, target embedding and output projection. three_way: one
    table (AIAYN §3.4). two_way: the source has its own. none: each has its own."""
    scale_embeddings: bool = True
    """Whether embeddings are multiplied by √D (AIAYN §3.4)."""
    logits_bias: bool = False
    """Whether each piece of the vocabulary has a bias."""
    logit_soft_cap: float = not_negative(0.0)
    """Keeps logits within ± this by tanh (Gemma 2, 2024); 0: not."""
    initializer: str = choice(
        "xavier_uniform", "xavier_normal", "lecun_normal", "he_normal", "normal", "gpt2"
    )
    """xavier_uniform, xavier_normal (Glorot and Bengio 2010), lecun_normal (LeCun et al. 1998),
    he_normal (He et al. 2015), with embeddings of variance 1/D; all normal, deviation 0.02: normal
    (Devlin et al. 2019), gpt2: and less by depth at the end of sub-layers (Radford et al. 2019)."""
    width_scaling: str = choice("none", "mup")
    """mup: learning rates found at base_d_model (and base_d_k) hold at any width, with Adam and its
    kin (μP, Yang et al. 2022, Table 8)."""
    base_d_model: int = positive(512)
    """mup: the width that learning rates were found at."""
    base_d_k: int = positive(64)
    """mup: the head size that learning rates were found at."""
    dtype: str = choice("auto", "float32", "bfloat16")
    """Mixed precision: the dtype of computation. auto: bfloat16 on TPU and GPU, else float32."""
    unroll: bool = False
    """Layers as straight code instead of a loop: same parameters, longer compile."""
    remat: str = one_of("none", REMAT)
    """Activation (gradient) checkpointing: what of a layer the backward pass computes again. full:
    all. dots_saveable: all but matrix products. dots_with_no_batch_dims_saveable: all but products
    with weights."""
    positions: PositionsConfig = PositionsConfig()
    attention: AttentionConfig = AttentionConfig()
    recurrent: RecurrentConfig = RecurrentConfig()
    vocab_size: int = TokenizerConfig.vocab_size
    """V. An experiment sets `data.tokenizer.vocab_size`: the one key that two sections share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.family == "encoder" or (self.readout == "position" and self.patch == 1),
            f"model.readout={self.readout} and model.patch={self.patch} are for "
            "model.family=encoder: leave them at their defaults",
        )
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
        default = ModelConfig()
        return next(
            (key for key in LAYER_KEYS if getattr(self, key) != getattr(default, key)), None
        )


# What only a Transformer's layers read; defaults say nothing.
LAYER_KEYS = (
    *("kv_heads", "attention_dropout", "layer_drop", "norm", "norm_function", "qk_norm"),
    *("sublayers", "feed_forward", "feed_forward_bias", "attention_bias", "initializer"),
    "width_scaling",
)
