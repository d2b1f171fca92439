"""JoeyNMT's recurrent model on IWSLT14 German to English: one GRU layer, additive attention.

command    transformer train --config=experiments/iwslt14_de_en_rnn.py --workdir=runs/iwslt14_rnn
           with the corpus's files named by --config.data.text.train_source=... and so on;
           transformer evaluate --workdir=runs/iwslt14_rnn
hardware   not run yet
score      not yet reproduced. JoeyNMT's: 30.74 BLEU (61 million parameters)
departs    its decoder scores with the state after the step, as Luong's do, hence luong_concat; it
           lowers the rate when the development loss stalls, this one by a cosine
"""

from ml_collections import ConfigDict

from experiments import base


def get_config(variant: str = "") -> ConfigDict:
    """Embeddings of 620, a state of 1,000 (500 in each direction of the encoder), nothing tied."""
    config = base.get_config()
    config.model.family = "gru"
    config.model.encoder_layers = config.model.decoder_layers = 1
    config.model.d_model = 620
    config.model.dropout = 0.2
    config.model.tied = "none"
    config.model.recurrent.d_hidden = 1000
    config.model.recurrent.attention = "luong_concat"
    config.model.recurrent.input_feeding = True
    config.data.source = "text"
    config.data.tokenizer.vocab_size = 20_400  # theirs: two, of 32,000 merges
    config.data.tokenizer.lowercase = True
    config.data.max_length = 64
    config.data.tokens_per_batch = 80 * 32
    config.training.steps = 200_000
    config.training.label_smoothing = 0.0
    config.training.eval_every = 2_000
    config.optimizer.options = ConfigDict({"b1": 0.9, "b2": 0.999, "eps": 1e-8})
    config.optimizer.schedule = "warmup_cosine_decay"
    config.optimizer.schedule_options = ConfigDict(
        {"init_value": 0.0, "peak_value": 2e-4, "warmup_steps": 1_000, "decay_steps": 200_000}
    )
    config.checkpoints.every = 2_000
    config.checkpoints.average = 1
    config.decoding.beam = 5
    config.decoding.length_penalty = "power"
    config.decoding.alpha = 1.0
    return base.with_variants(config, variant)
