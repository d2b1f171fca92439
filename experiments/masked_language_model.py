"""An encoder alone as a masked language model: casa roja's Spanish, 15 % of it to be restored.

command    transformer train --config=experiments/masked_language_model.py --workdir=runs/masked
           transformer evaluate --workdir=runs/masked
           echo "la <mask> es roja" | transformer translate --workdir=runs/masked
variants   code: this package's own source code in place of the Spanish
hardware   2 cores of a Xeon with AVX-512
time       4 min 39 s for 1,000 steps, beside other work
score      3,447 masked pieces of 2,000 test sentences, the same in each evaluation: accuracy
           52.22 %, perplexity 6.36. BLEU and exact match are of text without masks, and say how
           well it is copied
"""

from ml_collections import ConfigDict

from experiments import base


def get_config(variant: str = "") -> ConfigDict:
    """Three layers of BERT's kind (Devlin et al. 2019): GELU, learned positions; but pre-norm."""
    config = base.get_config()
    config.model.family = "encoder"
    config.model.encoder_layers = 3
    config.model.d_model = 128
    config.model.d_ff = 512
    config.model.heads = 4
    config.model.d_k = config.model.d_v = 32
    config.model.norm = "pre"
    config.model.feed_forward = "gelu"
    config.model.logits_bias = True
    config.model.scale_embeddings = False  # so that words start as large as learned positions
    config.model.positions.scheme = "learned"
    config.model.positions.length = 64
    config.data.source = "casa_roja"
    config.data.side = "source"
    config.data.masked = 0.15
    config.data.casa_roja.train_size = 100_000
    config.data.tokenizer.vocab_size = 1_000
    config.data.batching = "packed"
    config.data.packed_length = 64
    config.data.max_length = 64
    config.data.tokens_per_batch = 2_048
    config.training.label_smoothing = 0.0
    config.training.steps = 1_000
    config.training.minutes = 10.0
    config.training.log_every = 50
    config.training.eval_every = 250
    config.optimizer.schedule = "warmup_cosine_decay"
    config.optimizer.schedule_options = ConfigDict(
        {"init_value": 0.0, "peak_value": 0.001, "warmup_steps": 150, "decay_steps": 1_000}
    )
    config.checkpoints.every = 500
    config.checkpoints.average = 1
    config.decoding.beam = 1
    config.decoding.extra_length = 0
    return base.with_variants(config, variant, {"code": code, "smoke": smoke})


def code(config: ConfigDict) -> None:
    """Passages of eight lines, whole: see language_model.py."""
    config.data.source = "files"
    config.data.side = "target"
    config.data.files.prompt_lines = 0
    config.data.tokenizer.vocab_size = 2_000
    config.data.packed_length = config.data.max_length = 256
    config.model.positions.length = 256


def smoke(config: ConfigDict) -> None:
    """Of base.py, with its corpus, and more of it in a batch: few of its tokens count."""
    base.smoke(config)
    config.data.tokens_per_batch = 2_048
    config.data.tokenizer.vocab_size = 320
