"""What is computed: model families behind one contract (seq2seq.py).

To add a family: subclass `Seq2Seq` and answer its calls. `model.family="my_package.module:Class"`
takes it from anywhere; one of ours has a row in `FAMILIES`.
"""

from transformer.config import ModelConfig
from transformer.dotted import is_dotted, resolve
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
    name = config.family
    if is_dotted(name):
        family = resolve(name, "model.family")
        if not (isinstance(family, type) and issubclass(family, Seq2Seq)):
            raise UserError(f"model.family is {name!r}, which is no subclass of Seq2Seq")
    elif name in FAMILIES:
        family = FAMILIES[name]
    else:
        raise UserError(
            f"model.family is {name!r}; choose one of {', '.join(FAMILIES)}, or give a class of "
            'your own, "module:Class"'
        )
    why = family.unsupported(config)
    if why is not None:
        raise UserError(why)
    return family(config)


__all__ = ["FAMILIES", "Cache", "Memory", "Seq2Seq", "build_model"]
