"""The smallest experiment that trains: for tests that run whole processes."""

from ml_collections import ConfigDict

from experiments import base


def get_config(variant: str = "") -> ConfigDict:
    """One layer a side, one compiled shape; long enough to be stopped half-way."""
    config = base.get_config("smoke")
    config.model.encoder_layers = config.model.decoder_layers = 1
    config.model.d_model = 16
    config.model.heads = 2
    config.model.dropout = 0.3
    config.data.casa_roja.train_size = 200
    config.data.casa_roja.dev_size = config.data.casa_roja.test_size = 11
    config.data.tokens_per_batch = 1_024
    config.training.steps = 300
    config.training.log_every = 10
    config.training.eval_every = 150
    config.training.eval_samples = 0
    config.checkpoints.every = 60
    config.checkpoints.keep_last = 3
    return base.with_variants(config, variant)
