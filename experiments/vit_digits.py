"""A Vision Transformer on scikit-learn's handwritten digits: 8 x 8 pixels in patches of 2 x 2.

command    pip install -e '.[digits]'
           transformer train --config=experiments/vit_digits.py --workdir=runs/vit_digits
           transformer evaluate --workdir=runs/vit_digits
hardware   2 cores of a Xeon with AVX-512
time       5 min 42 s for 2,000 steps, beside other work (--config.training.minutes=0.0)
score      400 test pictures: exact match, which is the accuracy, 95.75 %
"""

from ml_collections import ConfigDict

from experiments import base


def get_config(variant: str = "") -> ConfigDict:
    """Dosovitskiy et al. (2021), small: pre-norm, GELU, class token, learned positions."""
    config = base.get_config()
    config.model.family = "encoder"
    config.model.readout = "class"
    config.model.patch = 4
    config.model.encoder_layers = 4
    config.model.d_model = 64
    config.model.d_ff = 128
    config.model.heads = 4
    config.model.d_k = config.model.d_v = 16
    config.model.norm = "pre"
    config.model.feed_forward = "gelu"
    config.model.positions.scheme = "learned"
    config.model.positions.length = 72
    config.model.scale_embeddings = False  # so that pixels start as large as learned positions
    config.data.source = "digits"
    config.data.digits.shifts = 1
    config.data.tokenizer.vocab_size = 400
    config.data.max_length = 72  # 64 pixels and </s>
    config.data.tokens_per_batch = 64 * 72
    config.data.shapes = 2  # beside the square of 72, which no picture needs, 72 + 8
    config.training.label_smoothing = 0.0
    config.training.steps = 2_000
    config.training.minutes = 10.0
    config.training.log_every = 50
    config.training.eval_every = 500
    config.training.eval_bleu = True  # and with it exact match
    config.optimizer.name = "adamw"
    config.optimizer.options = ConfigDict({"b1": 0.9, "b2": 0.98, "weight_decay": 0.05})
    config.optimizer.schedule = "warmup_cosine_decay"
    config.optimizer.schedule_options = ConfigDict(
        {"init_value": 0.0, "peak_value": 0.002, "warmup_steps": 100, "decay_steps": 2_000}
    )
    config.checkpoints.every = 500
    config.checkpoints.average = 1
    config.decoding.beam = 1
    config.decoding.extra_length = 2
    return base.with_variants(config, variant, {"smoke": smoke})


def smoke(config: ConfigDict) -> None:
    """Of base.py, and the pictures in place of its corpus."""
    base.smoke(config)
    config.data.source = "digits"
    config.data.digits.shifts = 0
    config.data.max_length = config.data.packed_length = 72
    config.data.shapes = 2
    config.data.tokens_per_batch = 16 * 72
    config.data.digits.dev_size = config.data.digits.test_size = 64
