"""How fast text becomes batches, and how much of them is padding.

    python -m experiments.benchmarks.data --source=train.en.gz --target=train.de.gz \\
        --json=experiments/results/data.json --png=experiments/results/data.png

Without files the corpus is casa roja's. Measured, each several times, medians:

tokenise   text to a store on disk, beside SentencePiece's own `encode` of the same lines on all
           cores, in turns. Ours may be the faster: Python's collector, which SentencePiece's many
           lists set off, is paused while a store is built
batches    from the store to arrays, tokens of both sides a second, on one core
plan       an epoch of --pairs sentence pairs (WMT14's 4.5 million) of made-up lengths: seconds, and
           the memory that it takes at most
padding    share of positions that are padding: bucketed (12 shapes at most) and packed
"""

import argparse
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from experiments.benchmarks.common import bars, new_figure, record
from transformer.data import (
    Batches,
    Pair,
    Plan,
    Same,
    SentencePieceTokenizer,
    Store,
    everything,
    open_store,
    plan_buckets,
    plan_packed,
    tokenizers,
)
from transformer.data.sources import CasaRoja, Text
from transformer.files import write_json
from transformer.inspection.figures import write_figure

BUCKETS = {"tokens_per_batch": 8_192, "shapes": 12, "row_multiple": 8}
PACKED = {"tokens_per_batch": 8_192, "packed_length": 256, "row_multiple": 8}


def corpus(source: str, target: str, pairs: int) -> list[Pair]:
    """The lines of two files, or of our grammar."""
    if source:
        return list(Text(source, target, "", "", "", "").pairs("train"))
    return list(CasaRoja(pairs, 1, 1).pairs("train"))


def trained(
    pairs: Sequence[Pair], path: Path, kind: str, vocabulary: int
) -> SentencePieceTokenizer:
    """A tokenizer with the defaults of experiments/base.py, on all of the text."""
    tokenizers.train(
        pairs,
        path,
        kind=kind,
        vocab_size=vocabulary,
        lowercase=False,
        split_scripts=True,
        character_coverage=1.0,
        train_sentences=len(pairs),
    )
    return SentencePieceTokenizer.load(path)


def tokenise(pairs: Sequence[Pair], kind: str, vocabulary: int, rounds: int) -> dict[str, Any]:
    """Sentences a second of ours and of SentencePiece alone, and the median of the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.model"
        tokenizer = trained(pairs, path, kind, vocabulary)
        processor = sentencepiece.SentencePieceProcessor()
        processor.load(str(path))
        lines = [side for pair in pairs for side in (pair.source, pair.target)]

        def ours() -> float:
            # To memory if there is such a folder: a disk's speed is not what is measured.
            where = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
            with tempfile.TemporaryDirectory(dir=where) as cache:
                return _seconds(
                    lambda: open_store(Path(cache), lambda: iter(pairs), tokenizer, key="store")
                )

        def theirs() -> float:
            return _seconds(lambda: processor.encode(lines, num_threads=-1))

        times = [(ours(), theirs()) for _ in range(rounds)]
    return {
        "kind": kind,
        "sentences_per_second": len(lines) / statistics.median(a for a, _ in times),
        "sentencepiece_per_second": len(lines) / statistics.median(b for _, b in times),
        "ratio": statistics.median(b / a for a, b in times),
    }


def batches(store: Store, plan: Plan, rounds: int) -> float:
    """Tokens of both sides a second, padding not counted; first an epoch is drawn."""
    made = Batches(Same(store, plan), seed=0)
    made[0]
    count = min(plan.batches_per_epoch, 200)
    share = count / plan.batches_per_epoch

    def some() -> None:
        for step in range(count):
            made[step]

    return plan.tokens * share / statistics.median(_seconds(some) for _ in range(rounds))


def synthetic_lengths(pairs: int) -> np.ndarray:
    """Of sources and targets, as of WMT14's text: log-normal, 27 tokens on average, related."""
    random = np.random.default_rng(0)
    both = random.normal(3.1, 0.6, pairs)
    sides = both[:, None] + random.normal(0.0, 0.15, (pairs, 2))
    return np.clip(np.exp(sides), 1, 256).astype(np.int32)


def planning(pairs: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds and peak MiB of planning and drawing an epoch, bucketed and packed."""
    lengths, rows = synthetic_lengths(pairs), []
    portions = everything(lengths)
    ways: dict[str, Callable[[], Plan]] = {
        "bucketed": lambda: plan_buckets(lengths, portions, length_multiple=8, **BUCKETS),
        "packed": lambda: plan_packed(lengths, portions, **PACKED),
    }
    for name, make in ways.items():

        def epoch(make: Callable[[], Plan] = make) -> None:
            make().rows(0, 0, 0)

        seconds = statistics.median(_seconds(epoch) for _ in range(rounds))
        tracemalloc.start()
        epoch()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        rows.append({"plan": name, "pairs": pairs, "seconds": seconds, "peak_mib": peak / 2**20})
    return rows


def padding(lengths: np.ndarray) -> list[dict[str, Any]]:
    """Bucketed at some multiples of lengths, packed at some of rows."""
    kept = lengths[lengths.max(axis=1) <= 256]
    portions = everything(kept)
    rows = []
    for multiple in (1, 4, 8):
        plan = plan_buckets(kept, portions, length_multiple=multiple, **BUCKETS)
        way = f"bucketed, lengths multiples of {multiple}"
        rows.append({"way": way, "share": plan.padding, "shapes": len(plan.shapes)})
    for multiple in (1, 8):
        plan = plan_packed(kept, portions, **{**PACKED, "row_multiple": multiple})
        way = f"packed in rows of 256, rows multiples of {multiple}"
        rows.append({"way": way, "share": plan.padding, "shapes": 1})
    return rows


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The table, for people."""
    for row in result["tokenise"]:
        yield (
            f"tokenise {row['kind']:8} {row['sentences_per_second']:9,.0f} sentences/s to a store; "
            f"SentencePiece alone {row['sentencepiece_per_second']:,.0f}: {row['ratio']:.2f} of it"
        )
    yield f"batches  {result['tokens_per_second'] / 1e6:.1f} million tokens/s"
    for row in result["plans"]:
        yield (
            f"plan     {row['plan']:8} {row['pairs']:,} pairs: {row['seconds']:.2f} s, "
            f"{row['peak_mib']:.0f} MiB"
        )
    for row in result["padding"]:
        yield f"padding  {row['share']:.1%} {row['way']}, {row['shapes']} shapes"


def draw(path: Path, result: dict[str, Any]) -> None:
    """Tokenising beside SentencePiece's own, the plan's seconds, the share of padding."""
    figure = new_figure(3)
    tokenising, planned, padded = figure.axes
    rates = {
        f"{whose} {row['kind']}": row[key]
        for row in result["tokenise"]
        for whose, key in (
            ("ours", "sentences_per_second"),
            ("SentencePiece", "sentencepiece_per_second"),
        )
    }
    bars(tokenising, rates, {name for name in rates if name.startswith("ours")})
    tokenising.set(title="tokenising to a store", ylabel="sentences a second")
    seconds = {row["plan"]: row["seconds"] for row in result["plans"]}
    bars(planned, seconds, seconds, ".2f")
    planned.set(title=f"planning {result['plans'][0]['pairs']:,} pairs", ylabel="seconds")
    shares = {row["way"].replace(", ", "\n"): 100 * row["share"] for row in result["padding"]}
    bars(padded, shares, shares, ".1f")
    padded.set(title="padding", ylabel="% of positions")
    padded.tick_params(axis="x", labelrotation=30, labelsize=7)
    write_figure(path, figure)


def main(arguments: list[str]) -> None:
    """Measures all of it and says so."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.data")
    parser.add_argument("--source", default="", help='a file of sentences; "" = casa roja')
    parser.add_argument("--target", default="")
    parser.add_argument("--sentences", type=int, default=100_000, help="pairs of casa roja")
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=4_500_000, help="pairs of the plan")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args(arguments)
    pairs = corpus(options.source, options.target, options.sentences)
    kinds = ("bpe", "unigram")
    result: dict[str, Any] = {
        "tokenise": [tokenise(pairs, kind, options.vocabulary, options.rounds) for kind in kinds]
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.model"
        tokenizer = trained(pairs, path, "bpe", options.vocabulary)
        store = open_store(Path(folder), lambda: iter(pairs), tokenizer, key="store")
        lengths = np.minimum(store.lengths, 256)
        plan = plan_buckets(lengths, everything(lengths), length_multiple=8, **BUCKETS)
        result["tokens_per_second"] = batches(store, plan, options.rounds)
        result["padding"] = padding(store.lengths)
    result["plans"] = planning(options.pairs, options.rounds)
    print("\n".join(lines(result)))
    if options.json:
        write_json(options.json, {**record("experiments.benchmarks.data", arguments), **result})
    if options.png:
        draw(options.png, result)


if __name__ == "__main__":
    main(sys.argv[1:])
