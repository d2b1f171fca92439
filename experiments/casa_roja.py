"""Casa roja: Spanish to English in a grammar of ours; what `./launch/quickstart` trains.

command   transformer train --config=experiments/casa_roja.py --workdir=runs/casa_roja
"""

from ml_collections import ConfigDict

from experiments import base


def get_config(variant: str = "") -> ConfigDict:
    """Two layers on each side, width 128: a Transformer small enough for two CPU cores."""
    config = base.get_config()
    config.model.encoder_layers = config.model.decoder_layers = 2
    config.model.d_model = 128
    config.model.d_ff = 256
    config.model.heads = 4
    config.model.d_k = config.model.d_v = 32
    config.data.source = "casa_roja"
    config.data.tokenizer.vocab_size = 2_000
    config.data.tokens_per_batch = 4_096
    config.data.max_length = 32
    config.data.shapes = 2
    config.training.steps = 2_000
    config.training.log_every = 100
    config.training.eval_every = 500
    config.optimizer.schedule_options = ConfigDict({"scale": 0.06, "warmup_steps": 400})
    config.checkpoints.every = 250
    config.checkpoints.average = 4
    config.decoding.extra_length = 10
    return base.with_variants(config, variant)
