"""How fast a model translates, beside Hugging Face's and CTranslate2: the same weights, in turns.

    python -m experiments.benchmarks.decode --json=experiments/results/decode.json \\
        --png=experiments/results/decode.png

AIAYN's base as a MarianMTModel (biases everywhere, swish, 16,000 words), of random numbers: 32
sentences of 32 tokens each, 32 tokens said of each, greedily and with a beam of 4. Ours is
`Translator.translate` of an import (`transformer.interop.marian`), batching included; theirs are
`generate`, and CTranslate2's conversion of the same folder, in float32 and in int8, all on as many
threads as there are cores. The weights themselves put `</s>` and padding out of reach, so that all
go on to the limit: 32 passes through the decoder, the last of which says `</s>` in ours and in
`generate`. How many sentences are said as ours says them is counted: all but that last token.

What a row gives are medians over rounds, contenders in turns, and the median of each round's ratio.
A turn's first translation, the slower one after a pause, is not timed.
Tokens are those said, whatever the beam.

Measured (results/decode.json, 2 cores of an AMD EPYC with AVX-512): ours is 2.06 times as fast as
CTranslate2 in float32 greedily, 1.49 times with a beam of 4. With whole numbers the two are level.
CTranslate2 is as its users start it: on this processor it takes oneDNN (CT2_VERBOSE=1 says so), and
with MKL (CT2_USE_MKL=1) it is no faster.

Where ours spends its time is what JAX's profiler says of one more translation, by the parts of the
model: milliseconds of instructions and how many there were. With whole numbers, greedily, 40 % go
into the products of the decoder's weights, 45 billion operations in 156 ms; as many take 68 ms in
the encoder, where a product has 1,024 rows, not 32. So XLA's kernel for few rows stands in the way.

The limit is derived in decode_model.py; its two rates are measured in the same run.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks.common import (
    bars,
    limit_line,
    matrix_rate,
    memory_rate,
    new_figure,
    record,
    seconds,
)
from experiments.benchmarks.decode_model import SIZES, Size, weights, write_model
from experiments.benchmarks.peers import Missing, Peer, environment
from experiments.benchmarks.profiled import RecordedLayout, milliseconds, show
from transformer.config import DecodingConfig
from transformer.decoding import InputShapes, Translator
from transformer.files import write_json
from transformer.inspection.figures import write_figure
from transformer.interop import marian
from transformer.models import build_model
from transformer.upstream import cpu

LIBRARIES = "safetensors sentencepiece numpy"
REQUIREMENTS = (
    f"torch==2.13.0+cpu transformers==5.23.* ctranslate2==4.8.* {LIBRARIES}",
    f"torch transformers ctranslate2 {LIBRARIES}",
)
# Ours: the name of a row, and what more `Translator` is given for it.
OURS = {"ours": "float", "ours, int8": "int8"}  # weights
PROGRAM = "decode_peers.py"
PEERS = ("Hugging Face", "CTranslate2", "CTranslate2, int8")
FIRST = "ours"  # what the others' tokens and times are compared with
BEAMS = (1, 4)
# Parts of a translation: what is found in an instruction's name and scopes.
PARTS = (
    ("words' scores", r"logits/.*dot_general"),
    ("attention: products of activations", r"/BGR\w+,\w+->\w+/dot_general|^dot\S* $"),
    ("encoder, once: products with weights", r"(encode|cross_kv)\b.*/dot_general"),
    ("decoder, each token: products with weights", r"/dot_general"),
    ("rounding of activations", r"(forward|_heads|_output)/(reduce_max|convert|round|div)"),
    ("caches: made, written, copied", r"cache|update_slice|^(wrapped_|copy|\w*broadcast\.)"),
    ("positions, once", r"positions\.add"),
)


class Numbers:
    """A tokenizer whose words are ids, ours."""

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[int(word) for word in text.split()] for text in texts]

    def decode(self, ids: list[list[int]]) -> list[str]:
        return [" ".join(map(str, row)) for row in ids]


@dataclasses.dataclass(frozen=True)
class Contender:
    """Who translates.

    Attributes:
        said: each sentence's tokens in Marian's ids, without the last.
        run: says all sentences, and the seconds that it took.
        where: milliseconds of `run` by part, of ours.
    """

    name: str
    said: list[list[int]]
    run: Callable[[], float]
    where: Callable[[], dict[str, Any]] | None = None


def ours(size: Size, folder: Path, name: str, beam: int) -> Contender:
    """Compiled, and run once. Imports what is in memory: `load` would need safetensors."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    imported, layout = marian.convert(config, weights(size)), RecordedLayout.single()
    translator = Translator(
        build_model(imported.config),
        jax.device_put(imported.params),
        Numbers(),
        DecodingConfig(
            beam=beam,
            length_penalty="power",
            alpha=1.0,
            extra_length=0,
            tokens_per_batch=size.rows * size.tokens,
            weights=OURS[name],
        ),
        shapes=InputShapes(
            max_length=size.tokens, row_multiple=size.rows, length_multiple=size.tokens
        ),
        layout=layout,
    )
    text = [" ".join(map(str, imported.ours_of[row[:-1]])) for row in size.sources]
    said = [imported.theirs_of[list(best.tokens)] for best, *_ in translator.translate(text)]
    run = lambda: seconds(lambda: translator.translate(text))  # noqa: E731
    return Contender(
        name,
        [row.tolist() for row in said],
        run,
        lambda: milliseconds(run, layout.scopes, PARTS),
    )


def theirs(peer: Peer, size: Size, name: str, beam: int) -> Contender:
    """The same of another; the tokens compared are those before the last pass."""
    ask = {"contender": name, "beam": beam}
    last = name == "Hugging Face"  # it says </s> in the last pass, and CTranslate2 one word more
    said = peer.ask({**ask, "tokens": size.tokens - 1 + last})["ids"]
    timed = {**ask, "tokens": size.tokens}
    peer.ask(timed)
    return Contender(
        name, [row[: size.tokens - 1] for row in said], lambda: peer.ask(timed)["seconds"]
    )


def measure(
    size: Size, beam: int, contenders: list[Contender], rounds: int
) -> list[dict[str, Any]]:
    """A row a contender: medians of rounds in which each has a turn."""

    def turn(contender: Contender) -> float:
        contender.run()  # after a pause: slower
        return contender.run()

    times = [{c.name: turn(c) for c in contenders} for _ in range(rounds)]
    (reference,) = (c for c in contenders if c.name == FIRST)
    rows = []
    for contender in contenders:
        name, said = contender.name, contender.said
        taken = statistics.median(turn[name] for turn in times)
        rows.append(
            {
                "contender": name,
                "beam": beam,
                "seconds": taken,
                "tokens_per_second": size.rows * size.tokens / taken,
                "ours_times_as_fast": statistics.median(t[name] / t[FIRST] for t in times),
                "sentences": size.rows,
                "said_as_ours": sum(map(list.__eq__, said, reference.said)),
            }
        )
    return rows


def run(
    size: Size, peer: Peer | None, beam: int, rounds: int, folder: Path, limit: float
) -> list[dict[str, Any]]:
    """The rows of a beam's width, said as they are measured."""
    contenders = [ours(size, folder, name, beam) for name in OURS]
    if peer is not None:
        contenders += [theirs(peer, size, name, beam) for name in PEERS]
    rows = measure(size, beam, contenders, rounds)
    for row in rows:
        row |= {
            "limit_tokens_per_second": limit,
            "share_of_limit": row["tokens_per_second"] / limit,
        }
        print(_line(row), flush=True)
    for row, contender in zip(rows, contenders, strict=True):
        if contender.where is not None:
            row["where"] = contender.where()
            print(f"beam {beam}  {contender.name}, by the profiler:")
            show(row["where"])
    return rows


def _line(row: dict[str, Any]) -> str:
    line = (
        f"beam {row['beam']}  {row['contender']:<18} {row['tokens_per_second']:>8,.0f} tokens/s "
        f"({row['share_of_limit']:>4.0%} of the limit)"
    )
    if row["contender"] == FIRST:
        return line
    return (
        f"{line}; ours is {row['ours_times_as_fast']:.2f} times as fast; "
        f"{row['said_as_ours']} of {row['sentences']} said as ours says them"
    )


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Bars of tokens a second, a panel a beam, and the limit."""
    beams = sorted({row["beam"] for row in rows})
    figure = new_figure(len(beams))
    for axes, beam in zip(figure.axes, beams, strict=True):
        mine = [row for row in rows if row["beam"] == beam]
        bars(axes, {row["contender"]: row["tokens_per_second"] for row in mine}, OURS)
        limit_line(axes, mine[0]["limit_tokens_per_second"], "limit in float32")
        axes.set(title=f"beam {beam}", ylabel="tokens a second")
    write_figure(path, figure)


def main(arguments: list[str]) -> None:
    """Measures each beam's contenders and says so."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.decode")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args(arguments)
    if jax.default_backend() != "cpu":
        sys.exit(f"error: JAX runs on {jax.default_backend()}, the others on the CPU")
    size, rows, versions = SIZES[options.size], [], {}
    rate, bandwidth = matrix_rate(), memory_rate()
    print(f"matrix products: {rate / 1e9:,.0f} GFLOP/s; copies: {bandwidth / 1e9:,.1f} GB/s")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_model(size, folder)
        peer = None
        if not options.no_peers:
            try:
                python = environment(*REQUIREMENTS)
                peer = stack.enter_context(Peer(python, Path(__file__).with_name(PROGRAM)))
                threads = len(os.sched_getaffinity(0))
                request = {"folder": str(folder), "sources": size.sources, "threads": threads}
                versions = peer.ask(request)["versions"]
            except Missing as error:
                sys.exit(f"error: {error}; --no-peers measures ours alone")
        for beam in BEAMS:
            limit = size.limit(beam, rate, bandwidth)
            rows += run(size, peer, beam, options.rounds, folder, limit)
    if options.json:
        described = record("experiments.benchmarks.decode", arguments)
        measured = {"matrix_flops": rate, "copied_bytes": bandwidth, "peers": versions}
        write_json(
            options.json,
            {
                **described,
                "size": dataclasses.asdict(size),
                "rounds": options.rounds,
                **measured,
                "rows": rows,
            },
        )
    if options.png:
        draw(options.png, rows)


if __name__ == "__main__":
    cpu.ask_for_huge_pages()
    main(sys.argv[1:])
