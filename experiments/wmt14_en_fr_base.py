"""AIAYN's base model on WMT14 English to French (Table 2).

command    transformer train --config=experiments/wmt14_en_fr_base.py --workdir=runs/wmt14_fr_base
           with the mesh of the machine, as in --config.mesh.data=8;
           transformer evaluate --workdir=runs/wmt14_fr_base
hardware   not run yet. The paper's: 8 P100
score      not yet reproduced. The paper's: 38.1 BLEU on newstest2014, tokenised
table      row "base" of Table 2
"""

from ml_collections import ConfigDict

from experiments import base, wmt14_en_de_base


def get_config(variant: str = "") -> ConfigDict:
    """As for German, on the French corpus."""
    config = wmt14_en_de_base.get_config()
    french(config)
    return base.with_variants(config, variant)


def french(config: ConfigDict) -> None:
    """36 million pairs, a vocabulary of 32,000 pieces (§5.1)."""
    config.data.tfds.name = "wmt14_translate/fr-en"
    config.data.tfds.target_language = "fr"
    config.data.tokenizer.vocab_size = 32_000
