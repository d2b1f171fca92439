"""AIAYN's big model on WMT14 English to French (Table 2).

command    transformer train --config=experiments/wmt14_en_fr_big.py --workdir=runs/wmt14_fr_big
           with the mesh of the machine, as in --config.mesh.fsdp=8;
           transformer evaluate --workdir=runs/wmt14_fr_big
hardware   not run yet. The paper's: 8 P100
score      not yet reproduced. The paper's: 41.8 BLEU on newstest2014, tokenised (its text: 41.0)
table      row "big" of Table 2
"""

from ml_collections import ConfigDict

from experiments import base, wmt14_en_de_big, wmt14_en_fr_base


def get_config(variant: str = "") -> ConfigDict:
    """As for German, on the French corpus, with dropout 0.1 instead of 0.3 (§6.1)."""
    config = wmt14_en_de_big.get_config()
    wmt14_en_fr_base.french(config)
    config.model.dropout = 0.1
    return base.with_variants(config, variant)
