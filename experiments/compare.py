"""RNN, GRU, LSTM and Transformer side by side: what the field changed models for, measured here.

command    transformer compare --config=experiments/compare.py:small --workdir=runs/compare
variants   small: what 90 minutes of two cores allow, one recall task, three seeds. Without it, all
           three recall tasks and five seeds: made for an accelerator
hardware   small: 2 cores of a Xeon with AVX-512
time       small: 80 minutes of training beside other work, 6 minutes of speed on a quiet machine
score      small: results/compare/report.md (and .html, .json). Trained at commit ba2bf1e; speed
           with the faster loss, dropout and recurrence of a8497b2; target tokens and FLOPs, which
           were those of the evaluation, counted again
"""

from typing import Any

from ml_collections import ConfigDict

from experiments import base, casa_roja, recall, recurrent
from transformer.config import base_comparison

FAMILIES = ("rnn_none", "gru_none", "lstm_none", "lstm_bahdanau", "lstm_luong")


def get_config(variant: str = "") -> ConfigDict:
    """All families on casa roja, and on three tasks of memory."""
    # Experiments by name; those of one group have the same data. A name means the same in all.
    translation = {name: recurrent.get_config(name) for name in FAMILIES}
    translation["transformer"] = casa_roja.get_config()
    recalls = {  # by task
        task: {n: recall.get_config(f"{task},{n}") for n in ("transformer", *FAMILIES)}
        for task in ("copy", "reverse", "associative")
    }
    config = base_comparison(translation, recalls)
    return base.with_variants(config, variant, {"small": small, "smoke": smoke})


def small(config: Any) -> None:
    """Three seeds; casa roja as it is, copying with smaller networks."""
    config.seeds = (0, 1, 2)
    for experiment in config.translation.values():
        experiment.training.steps = 700
        experiment.training.eval_every = 350
        experiment.checkpoints.every = 350
        experiment.optimizer.schedule_options.decay_steps = 700
    del config.recall["reverse"], config.recall["associative"]
    del config.recall["copy"]["lstm_bahdanau"]
    for experiment in config.recall["copy"].values():
        recall.small(experiment)


def smoke(config: Any) -> None:
    """Seconds for each training: that everything runs, not what it finds."""
    config.seeds = (0, 1)
    config.length_bins = (5,)
    del config.recall["reverse"], config.recall["associative"]
    for group, shrink in ((config.translation, base.smoke), (config.recall["copy"], recall.smoke)):
        for name in list(group):
            if name in ("transformer", "lstm_none", "lstm_luong"):
                shrink(group[name])
            else:
                del group[name]
    config.speed.lengths = (16, 32)
    config.speed.tokens = 64
    config.speed.rows = 2
    config.speed.rounds = 2
