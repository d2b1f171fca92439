"""What the model is."""

from dataclasses import dataclass

from transformer.config.checks import fraction, one_of, positive, require

SCHEMES = ("sinusoidal", "sinusoidal_halves", "learned", "none")


@dataclass(frozen=True)
class AttentionConfig:
    backend: str


@dataclass(frozen=True)
class PositionsConfig:
    scheme: str
    length: int

    def __post_init__(self) -> None:
        one_of("model.positions.scheme", self.scheme, SCHEMES)
        positive("model.positions", self, "length")


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
    d_k: int
    d_v: int
    dropout: float
    norm: str
    norm_epsilon: float
    tied: str
    dtype: str
    unroll: bool
    remat: str
    positions: PositionsConfig
    attention: AttentionConfig
    recurrent: RecurrentConfig
    vocab_size: int  # data.tokenizer.vocab_size: the one key that two sections share

    def __post_init__(self) -> None:
        positive("model", self, "encoder_layers", "decoder_layers", "d_model", "d_ff", "heads")
        positive("model", self, "d_k", "d_v", "norm_epsilon")
        fraction("model.dropout", self.dropout)
        one_of("model.norm", self.norm, ("post", "pre"))
        one_of("model.tied", self.tied, ("three_way", "two_way", "none"))
        one_of("model.dtype", self.dtype, ("auto", "float32", "bfloat16"))
        one_of("model.remat", self.remat, ("none", "full"))
        require(
            self.d_model % 2 == 0 or not self.positions.scheme.startswith("sinusoidal"),
            f"model.d_model is {self.d_model}; sinusoidal positions need an even width: "
            f"take {self.d_model + 1}",
        )
