"""How fast a corpus is prepared, in how much memory, and whether two machines make the same bytes.

    python -m experiments.benchmarks.prepare --source=train.en.gz --target=train.de.gz \\
        --json=experiments/results/prepare.json

The corpus is made of two aligned files: each of its pairs is two pairs of theirs, drawn at random
and joined, until there are --pairs (4.5 million, WMT14's number). Measured:

sentencepiece   its own `encode` on one core, of the same text, a median of several times
prepare         `transformer prepare --to=FOLDER`, whole: pairs a second from the first shard on,
                without the tokenizer's training, beside sentencepiece times the number of cores;
                and with it; the largest resident memory of each process
parts           --parts=2: the same by two processes, each a part: the same bytes, or not
"""

import argparse
import gzip
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import sentencepiece

from experiments.benchmarks.common import record
from transformer.files import write_json

SAMPLE = 20_000  # pairs that SentencePiece is timed on
TIMES = 5
CONFIG = """from transformer.config import base as _base
def get_config(variant=""):
    config = _base()
    config.data.source = "text"
    config.data.text.train_source, config.data.text.train_target = {source!r}, {target!r}
    config.data.cache_dir = {cache!r}
    config.data.tokenizer.vocab_size = 16_000
    config.data.tokenizer.train_sentences = {train_sentences}
    config.training.eval_every = 0
    return config
"""


def write_corpus(source: str, target: str, pairs: int, folder: Path) -> tuple[Path, Path]:
    """Two files of so many lines, each two lines of the given files."""
    sides = []
    for path in (source, target):
        content = Path(path).read_bytes()
        plain = gzip.decompress(content) if path.endswith(".gz") else content
        sides.append(plain.split(b"\n")[:-1])
    draw, paths = random.Random(0), (folder / "corpus.source", folder / "corpus.target")
    with paths[0].open("wb") as left, paths[1].open("wb") as right:
        for _ in range(pairs):
            first, second = draw.randrange(len(sides[0])), draw.randrange(len(sides[0]))
            left.write(sides[0][first] + b" " + sides[0][second] + b"\n")
            right.write(sides[1][first] + b" " + sides[1][second] + b"\n")
    return paths


def sentencepiece_rate(model: Path, paths: tuple[Path, Path]) -> float:
    """Pairs a second that SentencePiece encodes on one core."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    texts = []
    for path in paths:
        with path.open(encoding="utf-8") as file:
            texts += [line[:-1] for line in itertools.islice(file, SAMPLE)]
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        processor.encode(texts, num_threads=1)
        seconds.append(time.perf_counter() - began)
    return SAMPLE / statistics.median(seconds)


def prepared(config: Path, folder: Path, *more: str) -> dict[str, Any]:
    """Runs the command: its seconds, those of its shards, and the largest process's memory."""
    command = [sys.executable, "-m", "transformer", "prepare", f"--config={config}"]
    process = subprocess.Popen(
        [*command, f"--to={folder}", *more], stderr=subprocess.PIPE, text=True
    )
    began, largest = time.monotonic(), {}
    begin_of_shards = 0.0
    while process.poll() is None:
        if not begin_of_shards and (folder / "tokenizer.model").exists():
            begin_of_shards = time.monotonic()
        for one in [psutil.Process(process.pid), *_children(process.pid)]:
            try:
                memory = one.memory_full_info().uss
            except psutil.Error:
                continue
            largest[one.pid] = max(largest.get(one.pid, 0), memory)
        time.sleep(0.5)
    seconds = time.monotonic() - began
    assert process.stderr
    words = process.stderr.read()
    if process.returncode:
        sys.exit(words)
    print(words, flush=True)
    shards = time.monotonic() - begin_of_shards if begin_of_shards else seconds
    return {
        "seconds": seconds,
        "seconds_without_tokenizer": shards,
        "peak_mib": sorted((round(n / 2**20) for n in largest.values()), reverse=True),
    }


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--pairs", type=int, default=4_500_000)
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--train-sentences", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    result = record("experiments.benchmarks.prepare", sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_corpus(options.source, options.target, options.pairs, folder)
        config = folder / "config.py"
        keys = {"source": str(paths[0]), "target": str(paths[1])}
        train_sentences = options.train_sentences

        def write_config(cache: str) -> None:
            where = str(folder / cache)
            text = CONFIG.format(**keys, cache=where, train_sentences=train_sentences)
            config.write_text(text, encoding="utf-8")

        write_config("cache")
        whole = prepared(config, folder / "whole")
        rate = sentencepiece_rate(folder / "whole" / "tokenizer.model", paths)
        pairs_per_second = options.pairs / whole["seconds_without_tokenizer"]
        result |= {
            "pairs": options.pairs,
            "cores": cores,
            "sentencepiece_pairs_per_second_and_core": rate,
            "prepare": {
                **whole,
                "pairs_per_second": pairs_per_second,
                "ratio": pairs_per_second / (cores * rate),
            },
        }
        print(result, flush=True)
        if options.parts > 1:
            write_config("cache2")
            parts = [
                prepared(config, folder / "parts", f"--part={k}/{options.parts}")
                for k in range(1, options.parts + 1)
            ]
            same = {
                path.relative_to(folder / "whole"): path.read_bytes()
                for path in (folder / "whole").rglob("*")
                if path.is_file()
            } == {
                path.relative_to(folder / "parts"): path.read_bytes()
                for path in (folder / "parts").rglob("*")
                if path.is_file()
            }
            result["parts"] = {"of": parts, "same_bytes": same}
    print(result)
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
