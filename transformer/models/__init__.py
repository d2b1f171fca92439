"""What is computed: model families behind one contract (seq2seq.py).

To add a family: subclass `Seq2Seq`, answer its calls, and give it a row in `FAMILIES`.
"""

from transformer.config import ModelConfig
from transformer.errors import UserError
from transformer.models.recurrent import Recurrent
from transformer.models.seq2seq import Cache, Memory, Seq2Seq
from transformer.models.transformer import DecoderOnly, EncoderDecoder, EncoderOnly

FAMILIES: dict[str, type[Seq2Seq]] = {
    "transformer": EncoderDecoder,
    "decoder": DecoderOnly,
    "encoder": EncoderOnly,
    "rnn": Recurrent,
    "gru": Recurrent,
    "lstm": Recurrent,
}


def build_model(config: ModelConfig) -> Seq2Seq:
    """The model that a configuration names.

    Raises:
        UserError: no such family, or one that cannot be built as configured, and why.
    """
    if config.family not in FAMILIES:
        raise UserError(f"model.family is {config.family!r}; choose one of {', '.join(FAMILIES)}")
    why = FAMILIES[config.family].unsupported(config)
    if why is not None:
        raise UserError(why)
    return FAMILIES[config.family](config)


__all__ = ["FAMILIES", "Cache", "Memory", "Seq2Seq", "build_model"]
