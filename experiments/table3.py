"""AIAYN's Table 3: what each part of the Transformer is worth. English to German, newstest2013.

command    transformer train --config=experiments/table3.py:A1 --workdir=runs/table3_A1
           transformer params --config=experiments/table3.py:all: every row's parameters
           transformer table3 --config=experiments/table3.py:all --scale=tiny: the whole table
variants   a row: base, A1-A4 (heads), B1-B2 (size of keys), C1-C7 (size of the model), D1-D4
           (dropout, label smoothing), E (learned positions), big. None: base
           behind it tiny: every width a quarter, on your own text, for two cores
tiny       2 cores of a Xeon with AVX-512, Multi30k: 40 trainings of 112 minutes in all (with their
           evaluations 2 h 3 min) beside other work; results/table3. After a ten-thousandth
           of the paper's tokens what learns fast is ahead, not what is best in the end
hardware   at full size not run yet. The paper's: 8 P100
score      not yet reproduced. The paper's stand in ROWS: perplexity a word-piece and tokenised
           BLEU on the development set, without averaging of checkpoints
departs    vocabularies of 41,100 pieces (36,000 for big), with which every count of the paper's
           last column is true to its digits, not the "about 37,000" of §5.1, with which none is
"""

from typing import Any

from ml_collections import ConfigDict

from experiments import base, wmt14_en_de_big
from transformer.config.experiment_files import Published, Row

VOCABULARY = 41_100  # what the ten counts printed for base and its variations have in common
BIG_VOCABULARY = 36_000
WHY = (
    "Table 2's training FLOPs are 8 GPUs x hours (base 12, big 84) x 9.5e12 a second, what a GPU "
    "could sustain, not what the model asked of it; ours are 6 x parameters x target tokens "
    "(base 9.5e17 with the 37,000 pieces of its text)"
)


def _row(perplexity: float, bleu: float, millions: int | None = None, **changes: Any) -> Row:
    keys = {"positions": "model.positions.scheme", "label_smoothing": "training.label_smoothing"}
    changes = {keys.get(name, f"model.{name}"): value for name, value in changes.items()}
    if (d_model := changes.get("model.d_model")) is not None:  # Eq. 3 scales the rate by it
        changes["optimizer.schedule_options.scale"] = d_model**-0.5
    return Row(Published(perplexity, bleu, millions), changes)


ROWS = {
    "base": Row(Published(4.92, 25.8, 65, 3.3e18, WHY), {}),
    "A1": _row(5.29, 24.9, heads=1, d_k=512, d_v=512),
    "A2": _row(5.00, 25.5, heads=4, d_k=128, d_v=128),
    "A3": _row(4.91, 25.8, heads=16, d_k=32, d_v=32),
    "A4": _row(5.01, 25.4, heads=32, d_k=16, d_v=16),
    "B1": _row(5.16, 25.1, 58, d_k=16),
    "B2": _row(5.01, 25.4, 60, d_k=32),
    "C1": _row(6.11, 23.7, 36, encoder_layers=2, decoder_layers=2),
    "C2": _row(5.19, 25.3, 50, encoder_layers=4, decoder_layers=4),
    "C3": _row(4.88, 25.5, 80, encoder_layers=8, decoder_layers=8),
    "C4": _row(5.75, 24.5, 28, d_model=256, d_k=32, d_v=32),
    "C5": _row(4.66, 26.0, 168, d_model=1024, d_k=128, d_v=128),
    "C6": _row(5.12, 25.4, 53, d_ff=1024),
    "C7": _row(4.75, 26.2, 90, d_ff=4096),
    "D1": _row(5.77, 24.6, dropout=0.0),
    "D2": _row(4.95, 25.5, dropout=0.2),
    "D3": _row(4.67, 25.3, label_smoothing=0.0),
    "D4": _row(5.47, 25.7, label_smoothing=0.2),
    "E": _row(4.92, 25.7, positions="learned"),
    "big": Row(Published(4.33, 26.4, 213, 2.3e19, WHY), {}),
}


def get_config(variant: str = "") -> ConfigDict:
    """A row by its name, `table3.py:A1`; `A1,smoke` is its smoke test."""
    names = variant.split(",")
    if "all" in names:
        raise ValueError(
            "'all' is for `transformer params` and `transformer table3`: here take one row of "
            f"{', '.join(ROWS)}"
        )
    big = "big" in names
    config = wmt14_en_de_big.get_config() if big else base.get_config()
    config.data.tokenizer.vocab_size = BIG_VOCABULARY if big else VOCABULARY
    config.checkpoints.average = 1
    rows = {name: row.change for name, row in ROWS.items()}
    return base.with_variants(config, variant, {**rows, "tiny": tiny})


def tiny(config: ConfigDict) -> None:
    """Every width a quarter; a budget that two cores spend on 20 rows and 2 seeds in 2 hours.

    Far from convergence: what it shows is which rows learn faster. The corpus is named by
    --config.data.text.train_source and so on.
    """
    model = config.model
    for key in ("d_model", "d_ff", "d_k", "d_v"):
        setattr(model, key, getattr(model, key) // 4)
    config.data.source = "text"
    config.data.tokenizer.vocab_size = 4_000
    config.data.tokens_per_batch = 1_024
    config.data.max_length = 40
    config.data.length_multiple = 4
    config.data.shapes = 2
    config.training.steps = 500
    config.training.log_every = 100
    config.training.eval_every = 125
    config.training.eval_samples = 0
    # Eq. 3 but for a constant: base's peak is 0.0008. Much higher, six layers after norms learn
    # no more than how often each word occurs.
    config.optimizer.schedule_options = ConfigDict(
        {"scale": 0.143 * model.d_model**-0.5, "warmup_steps": 250}
    )
    config.decoding.beam = 1
    config.decoding.extra_length = 10
    config.checkpoints.every = 250
    config.checkpoints.keep_last = 1
    config.checkpoints.keep_best = 0
