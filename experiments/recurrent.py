"""RNN, GRU and LSTM on casa roja, without attention or with any alignment: small enough for a CPU.

command    transformer train --config=experiments/recurrent.py:lstm_luong --workdir=runs/lstm_luong
           transformer evaluate --workdir=runs/lstm_luong
variants   {rnn,gru,lstm}_{none,bahdanau,luong_dot,luong_general,luong_concat}; `_luong` is
           `_luong_general`. More, behind a comma: feed (input feeding), forwards (encoder in one
           direction), variational (dropout), deep (two layers). None: lstm_luong
hardware   2 cores of a Xeon with AVX-512
time       lstm_luong: 5 min 46 s for 1,000 steps beside other work (--config.training.minutes=0.0)
score      lstm_luong, 2,000 test sentences with held-out combinations: exact match 98.90 %,
           BLEU 99.57 nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from experiments import base, casa_roja

ATTENTION = {
    "none": "none",
    "bahdanau": "bahdanau",
    "luong": "luong_general",
    "luong_dot": "luong_dot",
    "luong_general": "luong_general",
    "luong_concat": "luong_concat",
}


def get_config(variant: str = "") -> ConfigDict:
    """One layer, width 128, state 256: about as many parameters as casa_roja.py's Transformer."""
    config = casa_roja.get_config()
    config.model.family = "lstm"
    config.model.norm = base.get_config().model.norm  # of attention's layers, which are not there
    config.model.encoder_layers = config.model.decoder_layers = 1
    config.model.recurrent.d_hidden = 256
    config.training.clip_norm = 1.0  # what a recurrence multiplies at each step can explode
    return base.with_variants(config, variant, VARIANTS)


def _family(name: str, attention: str) -> Callable[[ConfigDict], None]:
    def change(config: ConfigDict) -> None:
        config.model.family = name
        config.model.recurrent.attention = attention

    return change


def feed(config: ConfigDict) -> None:
    """Luong et al. (2015), §3.3."""
    config.model.recurrent.input_feeding = True


def forwards(config: ConfigDict) -> None:
    config.model.recurrent.bidirectional = False


def variational(config: ConfigDict) -> None:
    """Gal and Ghahramani (2016)."""
    config.model.recurrent.variational_dropout = True


def deep(config: ConfigDict) -> None:
    config.model.encoder_layers = config.model.decoder_layers = 2


VARIANTS = {
    **{
        f"{name}_{short}": _family(name, attention)
        for name in ("rnn", "gru", "lstm")
        for short, attention in ATTENTION.items()
    },
    "feed": feed,
    "forwards": forwards,
    "variational": variational,
    "deep": deep,
}
