"""Luong et al. (2015) on WMT14 English to German: four LSTM layers, attention, input feeding.

command    transformer train --config=experiments/wmt14_en_de_luong.py --workdir=runs/wmt14_luong
           transformer evaluate --workdir=runs/wmt14_luong
hardware   not run yet
score      not yet reproduced. The paper's "global attention + feed input", without replacing
           unknown words: 18.1 BLEU on newstest2014, tokenised (its Table 1)
departs    pieces of BPE in place of the paper's 50,000 words a language; the general score, which
           its Table 4 favours, in place of "location"; the source is not reversed
"""

from ml_collections import ConfigDict

from experiments import base

EPOCH = 35_000  # updates: 4.5 million pairs, 128 a batch


def get_config(variant: str = "") -> ConfigDict:
    """The paper's sizes and schedule with dropout (§4.1): 12 epochs, the rate halved after 8."""
    config = base.get_config()
    config.model.family = "lstm"
    config.model.encoder_layers = config.model.decoder_layers = 4
    config.model.d_model = 1000
    config.model.dropout = 0.2
    config.model.tied = "none"
    config.model.recurrent.d_hidden = 1000
    config.model.recurrent.bidirectional = False
    config.model.recurrent.attention = "luong_general"
    config.model.recurrent.input_feeding = True
    config.data.max_length = 64
    config.data.tokens_per_batch = 128 * 32
    config.training.steps = 12 * EPOCH
    config.training.label_smoothing = 0.0
    config.training.clip_norm = 5.0
    config.training.eval_every = EPOCH // 4
    config.optimizer.name = "sgd"
    config.optimizer.options = ConfigDict()
    config.optimizer.schedule = "exponential_decay"
    config.optimizer.schedule_options = ConfigDict(
        {
            "init_value": 1.0,
            "transition_steps": EPOCH,
            "decay_rate": 0.5,
            "transition_begin": 7 * EPOCH,
            "staircase": True,
        }
    )
    config.checkpoints.average = 1
    config.decoding.beam = 10
    return base.with_variants(config, variant, {"smoke": smoke})


def smoke(config: ConfigDict) -> None:
    """Of base.py, whose rate is Adam's; SGD's peak is 1, as above."""
    base.smoke(config)
    config.optimizer.schedule_options.scale = 20**0.5
