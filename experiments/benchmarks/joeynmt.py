"""Our training loop beside JoeyNMT's: the same model, on the same text, each as its users run it.

    python -m experiments.benchmarks.joeynmt --source=train.en.gz --target=train.de.gz \\
        --json=experiments/results/joeynmt.json

Both commands, `transformer train` and `joeynmt train`, train Transformer-Tiny as
experiments/multi30k_en_de_tiny.py says: layers, widths, heads, dropout, label smoothing, Adam,
positions in a batch at most. JoeyNMT gets our tokenizer, so both read the same pieces. It adds
biases to attention's projections, which we have none of, and shuffles whole epochs, where we put
sentences of like length together; that is what its batches are, and padding counts as nothing.

What is measured is target tokens a second between two logged updates, --every and --updates, so
that neither's start counts (imports, tokenizing, compiling), and all else does: reading, logging,
a checkpoint every --every updates. JoeyNMT writes checkpoints only where it validates; it does
that on SENTENCES sentences, one piece long, so that it costs next to nothing. In turns, several
rounds; given are medians, and the median of the rounds' ratios.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sentencepiece

from experiments.benchmarks.common import record
from experiments.benchmarks.peers import Missing, environment
from transformer.config import Config, from_dict
from transformer.data.sources import Text
from transformer.errors import UserError
from transformer.files import write_json
from transformer.run_directory import read_config
from transformer.training import metrics

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "experiments" / "multi30k_en_de_tiny.py")
# What JoeyNMT 2.3 imports when it trains; what it asks for itself does not go with today's torch,
# and later versions of SentencePiece lack a call that it makes.
NEEDED = (
    "numpy sentencepiece==0.2.0 subword-nmt sacrebleu pyyaml packaging importlib_metadata tqdm "
    "matplotlib tensorboard setuptools"
)
REQUIREMENTS = (f"torch==2.13.0+cpu {NEEDED}", f"torch {NEEDED}")
JOEYNMT = "joeynmt==2.3.0"
SENTENCES = 8  # of JoeyNMT's validation
STEP = re.compile(r"^(\S+ \S+) - .* Step: +(\d+), Batch Loss")
TOTAL = """
import sys, torch
for path in sys.argv[1:]:
    print(torch.load(path, weights_only=False)["stats_state"]["total_tokens"])
"""


@dataclass(frozen=True)
class Span:
    """The updates that are measured."""

    first: int  # update at whose end the clock starts
    last: int  # and stops
    log_every: int


def ours(config: str, corpus: Text, workdir: Path, span: Span) -> float:
    """Target tokens a second of `transformer train`."""
    keys = {
        "data.source": "text",
        "data.text.train_source": corpus.train_source,
        "data.text.train_target": corpus.train_target,
        "training.steps": span.last,
        "training.minutes": 0.0,
        "training.log_every": span.log_every,
        "training.eval_every": 0,
        "early_stopping.patience": 0,
        "checkpoints.every": span.first,
    }
    command = [sys.executable, "-m", "transformer", "train", f"--config={config}"]
    command += [f"--config.{key}={value}" for key, value in keys.items()]
    _run([*command, f"--workdir={workdir}"], "transformer train", {"PYTHONPATH": str(ROOT)})
    lines = [line for line in metrics.read(workdir) if line["kind"] == "train"]
    kept = [line for line in lines if line["step"] >= span.first]
    seconds = [b["clock"]["seconds"] - a["clock"]["seconds"] for a, b in itertools.pairwise(kept)]
    rates = [line["clock"]["tokens_per_second"] for line in kept[1:]]
    return sum(n * rate for n, rate in zip(seconds, rates, strict=True)) / sum(seconds)


def theirs(python: Path, configuration: Path, folder: Path, span: Span) -> float:
    """Target tokens a second of `joeynmt train`, which writes to `folder`."""
    _run([python, "-m", "joeynmt", "train", configuration, "--skip-test"], "joeynmt train")
    found = map(STEP.match, (folder / "train.log").read_text("utf-8").split("\n"))
    times = {int(match[2]): match[1] for match in found if match}
    first, last = (datetime.fromisoformat(times[step]) for step in (span.first, span.last))
    checkpoints = [folder / f"{step}.ckpt" for step in (span.first, span.last)]
    said = _run([python, "-c", TOTAL, *checkpoints], "reading JoeyNMT's checkpoints")
    before, after = map(int, said.split())
    return (after - before) / (last - first).total_seconds()


def prepare(corpus: Text, workdir: Path, folder: Path, span: Span) -> Path:
    """Text, pieces and configuration for JoeyNMT, those of a run of ours; the last one's path."""
    tokenizer = workdir / "tokenizer.model"
    pairs = [pair[:2] for pair in corpus.pairs("train") if all(map(str.strip, pair[:2]))]
    for split, chosen in (("train", pairs), ("dev", pairs[:SENTENCES])):
        for side, language in enumerate(("source", "target")):
            # A line ends only at a newline for us, at more characters for JoeyNMT.
            text = "".join(" ".join(pair[side].split()) + "\n" for pair in chosen)
            (folder / f"{split}.{language}").write_text(text, "utf-8")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    pieces = [processor.id_to_piece(n) for n in range(processor.get_piece_size())]
    (folder / "pieces.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    path = folder / "joeynmt.yaml"
    config = from_dict(read_config(workdir))
    path.write_text(json.dumps(configuration(config, tokenizer, folder, span), indent=1), "utf-8")
    return path


def configuration(config: Config, tokenizer: Path, folder: Path, span: Span) -> dict[str, Any]:
    """Our model and training in JoeyNMT's terms (JSON is YAML)."""
    model, data, training = config.model, config.data, config.training
    schedule = config.optimizer.schedule_options

    def side(language: str) -> dict[str, Any]:
        return {
            "lang": language,
            "level": "bpe",
            "max_length": data.max_length - 1,  # without </s>
            "voc_file": str(folder / "pieces.txt"),
            "tokenizer_type": "sentencepiece",
            "tokenizer_cfg": {"model_file": str(tokenizer)},
        }

    def stack(layers: int) -> dict[str, Any]:
        return {
            "type": "transformer",
            "num_layers": layers,
            "num_heads": model.heads,
            "embeddings": {
                "embedding_dim": model.d_model,
                "scale": True,
                "dropout": model.dropout,
            },
            "hidden_size": model.d_model,
            "ff_size": model.d_ff,
            "dropout": model.dropout,
            "layer_norm": model.norm,
            "activation": model.feed_forward,
        }

    return {
        "name": "tiny",
        "joeynmt_version": "2.3.0",
        "model_dir": str(folder / "model"),
        "use_cuda": False,
        "random_seed": config.seed,
        "data": {
            "train": str(folder / "train"),
            "dev": str(folder / "dev"),
            "dataset_type": "plain",
            "src": side("source"),
            "trg": side("target"),
            "special_symbols": {"unk_id": 0, "pad_id": 1, "bos_id": 2, "eos_id": 3},
        },
        "testing": {"batch_size": SENTENCES, "max_output_length": 1, "eval_metrics": []},
        "training": {
            "optimizer": "adam",
            "adam_betas": [config.optimizer.options["b1"], config.optimizer.options["b2"]],
            "scheduling": "warmupinversesquareroot",
            "learning_rate": schedule["scale"] / schedule["warmup_steps"] ** 0.5,
            "learning_rate_min": 0.0,
            "learning_rate_warmup": schedule["warmup_steps"],
            "label_smoothing": training.label_smoothing,
            "normalization": "tokens",
            "batch_type": "token",
            "batch_size": data.tokens_per_batch,
            "early_stopping_metric": "loss",
            "epochs": 1_000_000,
            "updates": span.last,
            "validation_freq": span.first,
            "logging_freq": span.log_every,
            "keep_best_ckpts": -1,  # all of them
            "print_valid_sents": [],
            "overwrite": True,
        },
        "model": {
            "initializer": "xavier_uniform",
            "embed_initializer": "xavier_uniform",
            "tied_embeddings": True,
            "tied_softmax": True,
            "encoder": stack(model.encoder_layers),
            "decoder": stack(model.decoder_layers),
        },
    }


def _run(command: Sequence[Any], name: str, more: dict[str, str] | None = None) -> str:
    """What a command prints. Raises Missing with what it said last, where it fails."""
    own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | (more or {})
    done = subprocess.run(list(map(str, command)), env=own, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().split("\n")[-2:]
        raise Missing(f"{name}: {' '.join(said)}")
    return done.stdout


def run(
    config: str, corpus: Text, python: Path | None, span: Span, rounds: int
) -> list[dict[str, float]]:
    """Tokens a second of both, a row a round; without their Python, ours alone."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(rounds):
            workdir = folder / str(number)
            row = {"ours": ours(config, corpus, workdir, span)}
            if python is not None:
                yaml = prepare(corpus, workdir, folder, span)
                row["joeynmt"] = theirs(python, yaml, folder / "model", span)
            rows.append(row)
            print(_line(row), flush=True)
    return rows


def _line(row: dict[str, float]) -> str:
    line = f"ours {row['ours']:,.0f} target tokens/s"
    if "joeynmt" not in row:
        return f"{line}; JoeyNMT: not asked"
    ratio = row["ours"] / row["joeynmt"]
    return f"{line}; JoeyNMT {row['joeynmt']:,.0f}; ours is {ratio:.2f} times as fast"


def main(arguments: list[str]) -> None:
    """Measures both and says so."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.joeynmt")
    parser.add_argument(
        "--source", type=Path, required=True, help="aligned sentences, plain or .gz"
    )
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--every", type=int, default=50, help="updates from checkpoint to the next")
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    files = [str(path.absolute()) for path in (options.source, options.target)]
    corpus = Text(*files, *4 * ("",))
    span = Span(options.every, options.updates, options.log_every)
    if span.first % span.log_every or span.last % span.first or span.last == span.first:
        parser.error("--every is to be a multiple of --log-every, and --updates one of --every")
    try:
        python = None if options.no_peer else environment(*REQUIREMENTS, alone=JOEYNMT)
        rows = run(options.config, corpus, python, span, options.rounds)
    except (Missing, UserError) as error:
        sys.exit(f"error: {error}" + ("" if options.no_peer else "; --no-peer measures ours alone"))
    result = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    if python is not None:
        result["ratio"] = statistics.median(row["ours"] / row["joeynmt"] for row in rows)
    print(f"medians of {len(rows)}: {_line(result)}")
    if options.json:
        described = record("experiments.benchmarks.joeynmt", arguments)
        write_json(options.json, {**described, "tokens_per_second": result, "rounds": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
