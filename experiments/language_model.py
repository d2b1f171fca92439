"""A decoder alone as a language model of source code: this package's own, or any text files.

command    transformer train --config=experiments/language_model.py --workdir=runs/language_model
           transformer evaluate --workdir=runs/language_model
           printf 'def attend(⏎\n' | transformer translate --workdir=runs/language_model |
           sed 's/⏎/\n/g; s/␣/ /g'     (how lines are written: transformer/data/passages.py)
           other text: --config.data.files.patterns="('notes/**/*.md',)"
hardware   2 cores of a Xeon with AVX-512
time       7 min 31 s for 800 steps, beside other work
score      171 test passages of this package's source as it was then: perplexity 41.16 a piece,
           12,251 pieces. BLEU and exact match compare continuations with the one in the file: of
           a language model, read the perplexity
"""

from ml_collections import ConfigDict

from experiments import base


def get_config(variant: str = "") -> ConfigDict:
    """Four layers as in GPT-2 (Radford et al. 2019): pre-norm, GELU; but rotary positions."""
    config = base.get_config()
    config.model.family = "decoder"
    config.model.decoder_layers = 4
    config.model.d_model = 128
    config.model.d_ff = 512
    config.model.heads = 4
    config.model.d_k = config.model.d_v = 32
    config.model.norm = "pre"
    config.model.feed_forward = "gelu"
    config.model.positions.scheme = "rotary"
    config.data.source = "files"
    config.data.tokenizer.vocab_size = 2_000
    config.data.tokens_per_batch = 2_048
    config.data.shapes = 4
    config.training.label_smoothing = 0.0
    config.training.steps = 800
    config.training.minutes = 10.0
    config.training.log_every = 50
    config.training.eval_every = 200
    config.optimizer.schedule = "warmup_cosine_decay"
    config.optimizer.schedule_options = ConfigDict(
        {"init_value": 0.0, "peak_value": 0.002, "warmup_steps": 100, "decay_steps": 800}
    )
    config.checkpoints.every = 200
    config.checkpoints.average = 1
    config.decoding.beam = 1
    config.decoding.extra_length = 200
    return base.with_variants(config, variant, {"smoke": smoke})


def smoke(config: ConfigDict) -> None:
    """Of base.py, and passages of two lines in place of its corpus."""
    base.smoke(config)
    config.data.source = "files"
    config.data.tokenizer.vocab_size = 600  # for some 140 letters, beside 260 bytes and the like
    config.data.files.lines = 2
    config.data.files.prompt_lines = 1
    config.data.files.dev_size = config.data.files.test_size = 64
