"""The options of the command line's commands, and what their `--help` says."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformer import streams
from transformer.files import any_path, local_path
from transformer.runtime import Exit

CONFIG_HELP = """
A configuration is a Python file, and changes to it by key:

  --config=experiments/casa_roja.py          an experiment
  --config=experiments/casa_roja.py:smoke    a variant of it, several separated by commas
  --config.model.d_model=256                 one key; transformer/config declares them all
"""
EXIT_HELP = """
exit code: 0 done; 42 told to stop (Ctrl-C, SIGTERM, SIGHUP) and all saved, the same command
goes on; anything else is an error.
"""
PREPARE_HELP = (
    CONFIG_HELP
    + """
examples:
  transformer prepare --config=experiments/wmt14_en_de_base.py
  transformer prepare --config=experiments/wmt14_en_de_base.py --to=gs://BUCKET/wmt14_en_de
  transformer train --config=experiments/wmt14_en_de_base.py \\
      --config.data.prepared=gs://BUCKET/wmt14_en_de --workdir=gs://BUCKET/runs/base
"""
)
TRANSLATE_HELP = """
Each line of input becomes n_best lines of output, one by default. A line that is bad (not UTF-8,
longer than the model takes) becomes empty lines, and is named on standard error at the end.
A translation that there is not is empty and has the score -inf.

  --format=plain    TEXT                   with --scores: SCORE<tab>TEXT
  --format=indexed  LINE<tab>RANK<tab>TEXT, both from 1; with --scores: SCORE<tab> before TEXT
  --format=moses    LINE ||| TEXT ||| SCORE, LINE from 0, as in Moses' n-best lists; | is &#124;

example:
  transformer translate --workdir=runs/casa_roja < spanish.txt > english.txt
"""
# What `verify` looks at by itself.
VERIFIED = ["reference", "xla", "chunked", "cudnn", "splash"]
VERIFIED += ["ring:chunked", "ring:splash", "ulysses"]

Command = Callable[[argparse.Namespace], Exit]


class _Parser(argparse.ArgumentParser):
    """One whose help is an error where it cannot be written."""

    def print_help(self, file: Any = None) -> None:
        if file is None:
            streams.output(self.format_help())
        else:
            super().print_help(file)


def command_line(commands: Sequence[Command]) -> argparse.ArgumentParser:
    """A parser whose result has the chosen command as `run`, and its options.

    Args:
        commands: by their names: prepare, train, evaluate, translate, attention, verify, compare,
            table3, params, copy.
    """
    by_name = {command.__name__: command for command in commands}
    parser = _Parser(
        prog="transformer",
        description="Trains, evaluates and looks into sequence-to-sequence models.",
        epilog="`transformer COMMAND --help` says more. The README shows a whole session.",
    )
    added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, summary: str, epilog: str = "") -> argparse.ArgumentParser:
        sub = added.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(run=by_name[name])
        return sub

    sub = command(
        "prepare", "tokenise an experiment's corpus, once for all runs that read it", PREPARE_HELP
    )
    _add_config(sub)
    sub.add_argument(
        "--to",
        type=any_path,
        help="the folder of the prepared corpus, on a disk or in a bucket (default: the cache of "
        "this machine, where train finds it by itself)",
    )
    sub.add_argument(
        "--part",
        type=_part,
        default=(1, 1),
        metavar="K/N",
        help="do the K-th of N parts: one for each machine, all with the same --to",
    )

    sub = command("train", "train an experiment, or go on with one", CONFIG_HELP + EXIT_HELP)
    _add_config(sub)
    sub.add_argument(
        "--workdir",
        type=any_path,
        help="the run's directory: made where it is not there, gone on with where it is "
        "(default: runs/NAME, NAME being config.name or a hash of the configuration)",
    )

    sub = command("evaluate", "score a run on a split of its corpus")
    _add_run(sub)
    sub.add_argument("--split", choices=("test", "dev"), default="test", help="(default: test)")
    sub.add_argument("--source", help="a text file, a sentence a line, in place of a split")
    sub.add_argument("--reference", help="the file of its translations")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")

    sub = command(
        "translate",
        "translate standard input, a sentence a line, to standard output",
        TRANSLATE_HELP,
    )
    _add_run(sub)
    sub.add_argument("--scores", action="store_true", help="a column of them: SCORE<tab>TEXT")
    formats = ("plain", "indexed", "moses")
    sub.add_argument("--format", choices=formats, default="plain", help="see below")
    sub.add_argument("--strict", action="store_true", help="exit code 1 where a line is bad")
    sub.add_argument(
        "--chunk",
        type=_positive,
        default=1_000,
        help="lines read before any is written (default: 1000)",
    )

    sub = command("attention", "show which source words each target word attends to")
    _add_run(sub)
    sub.add_argument("sentence", help="a source sentence")
    sub.add_argument("--translation", help="attend from this target (default: the model's own)")
    sub.add_argument("--png", type=local_path, help="the picture (default: WORKDIR/attention.png)")

    sub = command(
        "verify", "hold each attention backend to the reference, on this machine", CONFIG_HELP
    )
    _add_config(sub)
    sub.add_argument("--length", type=_positive, help="positions (default: data.max_length)")
    sub.add_argument(
        "--backends",
        type=lambda names: names.split(","),
        help=f"separated by commas (default: {','.join(VERIFIED)}, and the configuration's)",
    )
    sub.add_argument("--table", action="store_true", help="print every error, in Markdown")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command(
        "compare",
        "train and measure several experiments side by side, and write a report",
        CONFIG_HELP.replace("casa_roja", "compare")
        .replace(":smoke", ":small")
        .replace("model.d_model=256", "budget=flops")
        .replace("base.py", "compare.py")
        + EXIT_HELP,
    )
    _add_config(sub)
    sub.add_argument(
        "--workdir",
        type=any_path,
        default=Path("runs/compare"),
        help="made where it is not there, gone on with where it is (default: runs/compare)",
    )

    sub = command(
        "table3", "fill AIAYN's Table 3, or another's rows, on your data and budget", EXIT_HELP
    )
    sub.add_argument(
        "--config",
        required=True,
        metavar="FILE:all",
        help="experiments/table3.py:all, experiments/modern.py:all",
    )
    sub.add_argument(
        "--scale",
        default="",
        help="a variant behind each row, such as tiny (default: the paper's)",
    )
    sub.add_argument("--seeds", type=_positive, default=2, help="of each row (default: 2)")
    sub.add_argument(
        "--workdir",
        type=any_path,
        default=Path("runs/table3"),
        help="made where it is not there, gone on with where it is (default: runs/table3)",
    )

    sub = command("copy", "copy a run directory whole, to a disk or into a bucket")
    sub.add_argument(
        "--from", dest="source", type=any_path, required=True, help="the run's directory"
    )
    sub.add_argument("--to", dest="target", type=any_path, required=True, help="where none is yet")

    sub = command("params", "count an experiment's parameters and FLOPs", CONFIG_HELP)
    _add_config(sub)
    sub.add_argument("--length", type=_positive, default=32, help="tokens a sentence (default: 32)")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or len(text) > 12 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    is_number = number.isdecimal() and of.isdecimal() and len(text) < 12
    if not is_number or not 1 <= int(number) <= int(of):
        raise argparse.ArgumentTypeError(f"{text!r} is no part: give K/N, such as 1/4")
    return int(number), int(of)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="see below")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", type=any_path, required=True, help="the run's directory, or gs://..."
    )
    parser.add_argument(
        "--checkpoint",
        default="average",
        help="average (of the last ones, as configured) | last | best | a step (default: average)",
    )
    parser.add_argument("--beam", type=int, help="beam width, 1 = greedy (default: the run's)")
    parser.add_argument(
        "--alpha", type=float, help="length penalty's exponent (default: the run's)"
    )
    parser.add_argument("--n-best", type=int, help="translations a sentence (default: the run's)")
    parser.add_argument("--weights", help="float | int8 (default: the run's)")
