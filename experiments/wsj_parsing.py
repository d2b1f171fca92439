"""Constituency parsing of the Wall Street Journal (AIAYN §6.3, Table 4).

command    transformer train --config=experiments/wsj_parsing.py --workdir=runs/wsj_parsing \\
             --config.data.treebank.train='wsj/0[2-9]/*.mrg,wsj/1?/*.mrg,wsj/2[01]/*.mrg' \\
             --config.data.treebank.dev='wsj/22/*.mrg' --config.data.treebank.test='wsj/23/*.mrg'
           with the mesh of the machine, as in --config.mesh.data=8;
           transformer evaluate --workdir=runs/wsj_parsing
           the Penn Treebank is yours to get: LDC99T42, sections 2-21, 22 and 23
variants   semi_supervised: trees that a parser made beside them, under two names:
             --config.data.mixture.wsj.treebank.train=... (and dev, test)
             --config.data.mixture.more.treebank.train=...
hardware   not run yet
score      not yet reproduced. The paper's: F1 91.3 on section 23; semi_supervised 92.7
table      rows "Transformer (4 layers)" of Table 4
printed    4 layers, d_model 1024, 16K tokens of vocabulary (semi_supervised: 32K), beam 21,
           α 0.3, output at most input + 300; the rest "unchanged" from English to German
ours       what the paper tuned on section 22 and does not print: both dropouts and the warm-up,
           which tensor2tensor's transformer_parsing_base has; and d_k, d_v for that d_model, as in
           row C5 of Table 3; updates; longest sentence; how often which trees come
"""

from ml_collections import ConfigDict

from experiments import base, parsing


def get_config(variant: str = "") -> ConfigDict:
    """The setting of the treebank alone, "WSJ only"."""
    config = base.get_config()
    config.model.encoder_layers = config.model.decoder_layers = 4
    config.model.d_model = 1024
    config.model.d_k = config.model.d_v = 128
    config.model.dropout = 0.2
    config.model.attention_dropout = 0.2
    config.data.source = "treebank"
    parsing.brackets(config)
    config.data.tokenizer.vocab_size = 16_000
    config.data.max_length = 512
    config.training.eval_every = 2_500
    config.optimizer.schedule_options = ConfigDict({"scale": 1024**-0.5, "warmup_steps": 16_000})
    config.decoding.beam = 21
    config.decoding.alpha = 0.3
    config.decoding.extra_length = 300
    config.decoding.tokens_per_batch = 1_024  # a beam of 21 keeps as many keys and values of each
    return base.with_variants(config, variant, VARIANTS)


def semi_supervised(config: ConfigDict) -> None:
    """About 17 million sentences that parsers parsed, beside 40,000 that people did."""
    config.data.mixture = ConfigDict(
        {
            name: {"source": "treebank", "rate": rate, "treebank": config.data.treebank.to_dict()}
            for name, rate in (("more", 1.0), ("wsj", 10.0))
        }
    )
    config.data.source = "mixture"
    config.data.tokenizer.vocab_size = 32_000


VARIANTS = {"smoke": parsing.smoke, "semi_supervised": semi_supervised}
