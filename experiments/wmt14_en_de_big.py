"""AIAYN's big model on WMT14 English to German (Table 2).

command    transformer train --config=experiments/wmt14_en_de_big.py --workdir=runs/wmt14_big
           with the mesh of the machine, as in --config.mesh.fsdp=8;
           transformer evaluate --workdir=runs/wmt14_big
hardware   not run yet. Compiled ahead of time for TPU v5e 4x4 and v5p 4x4x4, where it fits the
           chips' memory (tests/tpu_aot). The paper's: 8 P100
score      not yet reproduced. The paper's: 28.4 BLEU on newstest2014, tokenised
table      row "big" of Table 2; of Table 3, without averaging: experiments/table3.py:big
"""

from ml_collections import ConfigDict

from experiments import base


def get_config(variant: str = "") -> ConfigDict:
    """Twice the base model's width and heads, dropout 0.3, 300,000 updates."""
    config = base.get_config()
    config.model.d_model = 1024
    config.model.d_ff = 4096
    config.model.heads = 16
    config.model.dropout = 0.3
    config.training.steps = 300_000
    config.optimizer.schedule_options = ConfigDict({"scale": 1024**-0.5, "warmup_steps": 4_000})
    config.checkpoints.keep_last = 20
    config.checkpoints.average = 20
    return base.with_variants(config, variant)
