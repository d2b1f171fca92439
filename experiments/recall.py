"""Memory over distance: copying, reversing and associative recall, 10 to 1,000 blanks away.

command    transformer train --config=experiments/recall.py:copy,lstm_none --workdir=runs/recall
           transformer evaluate --workdir=runs/recall
variants   copy, reverse, associative: the task, see transformer/data/recall.py. Behind a comma a
           family: transformer, or recurrent.py's ({rnn,gru,lstm}_{none,bahdanau,luong, ...}) and
           its other variants; small, for two cores. None: copy, lstm_luong
hardware   2 cores of a Xeon with AVX-512
score      copy,small, exact match over 10 ... 1,000 blanks, mean of three seeds: transformer and
           lstm_luong 100 %, gru_none 93 to 96, lstm_none 56 to 63, rnn_none 0
           (results/compare/report.md); the others not yet measured
"""

from ml_collections import ConfigDict

from experiments import base, recurrent


def get_config(variant: str = "") -> ConfigDict:
    """recurrent.py's network with an encoder in one direction, on all distances at once.

    A second direction would meet the symbols last, and have nothing to remember over the blanks.
    """
    config = recurrent.get_config()
    config.model.recurrent.bidirectional = False
    config.model.dropout = 0.0  # there is nothing to overfit to: no symbols come in two pairs
    config.data.source = "recall"
    # A piece for each symbol, as one token: 4 special ones, 256 bytes, ▁, and for each of 26
    # letters, 26 capitals and the blank one with ▁ before it and one without.
    config.data.tokenizer.vocab_size = 367
    config.data.max_length = 1_024  # 1,000 blanks, the items, </s>
    config.data.shapes = len(config.data.recall.distances)
    config.data.tokens_per_batch = 8 * 1_024
    config.training.label_smoothing = 0.0  # so that the loss of guessing is ln(symbols) a symbol
    config.training.steps = 2_000
    config.training.minutes = 20.0
    config.optimizer.schedule_options.peak_value = 0.002
    config.optimizer.schedule_options.decay_steps = 2_000
    config.decoding.beam = 1
    config.decoding.tokens_per_batch = 16 * 1_024
    return base.with_variants(config, variant, VARIANTS)


def copy(config: ConfigDict) -> None:
    """The sizes of Arjovsky et al. (2016): 10 symbols of 8 different ones, as in base.py."""
    config.data.recall.task = "copy"


def reverse(config: ConfigDict) -> None:
    config.data.recall.task = "reverse"


def associative(config: ConfigDict) -> None:
    config.data.recall.task = "associative"
    config.data.recall.item_count = 4


def transformer(config: ConfigDict) -> None:
    """The network of casa_roja.py: 0.71 M parameters here, lstm_none 0.87 M, lstm_luong 0.97 M."""
    config.model.family = "transformer"
    config.model.norm = "pre"
    config.model.encoder_layers = config.model.decoder_layers = 2


def small(config: ConfigDict) -> None:
    """A minute or two of two cores: small networks, as many batches of each distance."""
    config.model.encoder_layers = config.model.decoder_layers = 1
    config.model.d_model = 64
    config.model.d_ff = 512  # as many parameters as the LSTM
    config.model.d_k = config.model.d_v = 16
    config.model.recurrent.d_hidden = 128
    config.data.recall.item_count = 5
    config.data.recall.distance_weights = (32, 16, 8, 3, 1)
    config.data.recall.train_size = 10_000
    config.data.recall.test_size = 500
    config.data.tokenizer.vocab_size = 320
    config.data.max_length = 1_008
    config.data.tokens_per_batch = 8 * 1_008
    config.training.steps = 1_000
    config.training.minutes = 0.0
    config.training.eval_every = 500
    config.checkpoints.every = 500
    config.optimizer.schedule_options.decay_steps = 1_000


def smoke(config: ConfigDict) -> None:
    """Of base.py, and distances to match, in place of its corpus."""
    base.smoke(config)
    config.data.source = "recall"
    config.data.recall.item_count = 3
    config.data.recall.distances = (2, 5, 11)
    config.data.recall.train_size = 120
    config.data.recall.dev_size = 12
    config.data.recall.test_size = 64


VARIANTS = {
    **recurrent.VARIANTS,
    "copy": copy,
    "reverse": reverse,
    "associative": associative,
    "transformer": transformer,
    "small": small,
    "smoke": smoke,
}
