"""AIAYN's base model on WMT14 English to German (Table 2).

command    transformer train --config=experiments/wmt14_en_de_base.py --workdir=runs/wmt14_base
           with the mesh of the machine, as in --config.mesh.data=8;
           transformer evaluate --workdir=runs/wmt14_base
hardware   not run yet. The paper's: 8 P100
score      not yet reproduced. The paper's: 27.3 BLEU on newstest2014, tokenised
table      row "base" of Table 2; of Table 3, without averaging: experiments/table3.py:base
"""

from ml_collections import ConfigDict

from experiments import base


def get_config(variant: str = "") -> ConfigDict:
    """base.py as it is: 100,000 updates, the mean of the last five checkpoints."""
    return base.with_variants(base.get_config(), variant)
