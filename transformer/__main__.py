"""The command line: `transformer COMMAND ...`, or `python -m transformer COMMAND ...`."""

import argparse
import dataclasses
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from transformer import runtime
from transformer.errors import UserError
from transformer.experiment_files import load_config, load_rows
from transformer.files import local_path
from transformer.runtime import Exit

if TYPE_CHECKING:
    from transformer.experiment import Experiment

CONFIG_HELP = """
A configuration is a Python file, and changes to it by key:

  --config=experiments/casa_roja.py          an experiment
  --config=experiments/casa_roja.py:smoke    a variant of it, several separated by commas
  --config.model.d_model=256                 one key; experiments/base.py has them all
"""
EXIT_HELP = """
exit code: 0 done; 42 told to stop (Ctrl-C, SIGTERM, SIGHUP) and all saved, the same command
goes on; anything else is an error.
"""
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


def console() -> None:
    """What a shell starts: this process is the command's own."""
    runtime.ask_for_huge_pages()
    main()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    # Text is UTF-8, whatever the locale; names of files may be any bytes.
    errors = ("strict", "surrogateescape", "backslashreplace")
    try:
        for stream, how in zip((sys.stdin, sys.stdout, sys.stderr), errors, strict=True):
            if stream is None:
                raise UserError("standard input, output and error must be open: use /dev/null")
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors=how)
        parser = _parser()
        options, config_arguments = parser.parse_known_args(arguments)
        if config_arguments and not hasattr(options, "config"):
            parser.error(f"unrecognized arguments: {' '.join(config_arguments)}")
        options.config_arguments = config_arguments
        code = options.run(options)
        runtime.report()
        sys.exit(int(code))
    except BrokenPipeError as error:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(Exit.ERROR, error)
    except (UserError, OSError) as error:  # a full disk, a folder that cannot be written: it says
        line = f"transformer: {error}"
        _leave(Exit.ERROR, error, lambda: print(line, file=sys.stderr, flush=True))
    except KeyboardInterrupt as error:
        _leave(130, error)
    except Exception as error:
        _leave(Exit.ERROR, error, traceback.print_exc)


def _leave(code: int, error: BaseException, show: Callable[[], object] = lambda: None) -> NoReturn:
    """Shows an error and exits; has a run's other processes exit, too."""
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        from transformer import distributed

        distributed.leave(code, error, show)
    show()
    sys.stderr.flush()
    sys.exit(code)


def train(options: argparse.Namespace) -> Exit:
    # Until the loop takes them over there is nothing to save: they are obeyed at once.
    for number in {*runtime.stop_signals()} - {signal.SIGINT}:
        signal.signal(number, lambda *_: os._exit(Exit.PREEMPTED))
    config = load_config(options.config, options.config_arguments)
    runtime.prepare()
    from transformer import distributed

    distributed.initialize(**dataclasses.asdict(config.distributed))
    from transformer.experiment import Experiment
    from transformer.training import train as run

    workdir = options.workdir or Path("runs") / config.run_name
    return run(Experiment(config, workdir))


def evaluate(options: argparse.Namespace) -> Exit:
    experiment, params, which = _open_run(options)
    from transformer import evaluation
    from transformer.files import write_json

    result = evaluation.evaluate(experiment, params, options.split)
    content = {"checkpoint": which, **result.as_dict()}
    print(json.dumps(content, indent=2) if options.json else f"{which}\n{result.table()}")
    write_json(experiment.workdir / f"evaluation.{options.split}.json", content)
    result.write_texts(experiment.workdir)
    return Exit.DONE


def translate(options: argparse.Namespace) -> Exit:
    experiment, params, _ = _open_run(options)
    from transformer.decoding import BadLines, Form, open_translator, shown_as, translate_lines

    config, translator = experiment.config, open_translator(experiment, params)
    form = Form(options.format, options.scores, config.decoding.n_best, shown_as(experiment))
    longest = max(2**16, 64 * config.data.max_length)  # bytes of a line that may fit the model
    chunks = runtime.standard_input(options.chunk, longest)
    bad = BadLines()
    for output in translate_lines(translator, chunks, form, bad):
        print(output, end="", flush=True)
    if bad.count:
        print(f"transformer: {bad}", file=sys.stderr, flush=True)
    return Exit.ERROR if bad.of_the_model or (bad.count and options.strict) else Exit.DONE


def attention(options: argparse.Namespace) -> Exit:
    experiment, params, _ = _open_run(options)
    from transformer.inspection import inspect_sentence

    view = inspect_sentence(experiment, params, options.sentence, options.translation)
    print(view.text())
    png = options.png or experiment.workdir / "attention.png"
    view.save_png(png)
    print(png)
    return Exit.DONE


def params(options: argparse.Namespace) -> Exit:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # shapes only: no accelerator is woken for them
    from transformer.models import build_model, parameters

    path, _, variant = options.config.partition(":")
    if variant == "all" and (table := load_rows(path, options.config_arguments)):
        rows = [
            parameters.Row.of(name, config, options.length, row.published)
            for name, (config, row) in table.items()
        ]
        as_json = json.dumps([row.as_dict() for row in rows], indent=2)
        print(as_json if options.json else parameters.rows_table(rows))
        return Exit.DONE
    config = load_config(options.config, options.config_arguments)
    count = parameters.count(build_model(config.model), options.length)
    print(json.dumps(count.as_dict(), indent=2) if options.json else count.table())
    return Exit.DONE


def verify(options: argparse.Namespace) -> Exit:
    config = load_config(options.config, options.config_arguments)
    runtime.prepare()
    from transformer import attention
    from transformer.attention import verdict
    from transformer.models.layers import attention_split
    from transformer.sharding import Layout

    chosen = config.model.attention.backend
    if why := attention.unknown_backend(chosen):
        raise UserError(why)
    backends = options.backends or list(dict.fromkeys([*VERIFIED, chosen]))
    layout = Layout(dataclasses.asdict(config.mesh), config.sharding.rules)
    sizes = attention.Sizes(
        length=options.length or config.data.max_length,
        heads=config.model.heads,
        d_k=config.model.d_k,
        d_v=config.model.d_v,
        split=attention_split(layout),
    )
    cells = []
    for cell in attention.verify(backends, sizes):
        cells.append(cell)
        said = cell.fault or (f"refuses: {cell.refused}" if cell.refused else "ok")
        print(f"{cell.backend}, {cell.use}, {cell.case}: {said}", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([dataclasses.asdict(cell) for cell in cells], indent=1))
    else:
        print((verdict.table if options.table else verdict.summary)(cells))
    return Exit.ERROR if any(cell.fault for cell in cells) else Exit.DONE


def compare(options: argparse.Namespace) -> Exit:
    from transformer.config import ComparisonConfig

    config = load_config(options.config, options.config_arguments, ComparisonConfig)
    runtime.prepare()
    from transformer import reports

    return reports.compare(config, options.workdir)


def table3(options: argparse.Namespace) -> Exit:
    path, _, variant = options.config.partition(":")
    table = variant == "all" and load_rows(path, options.config_arguments, options.scale)
    if not table:
        raise UserError(
            f"--config={options.config} is no table: give FILE:all of a file with ROWS, such as "
            "experiments/table3.py:all"
        )
    runtime.prepare()
    from transformer import reports

    return reports.table3(table, range(options.seeds), options.workdir)


def _open_run(options: argparse.Namespace) -> "tuple[Experiment, Any, str]":
    """The run of `--workdir`, its parameters and which they are, on this process's devices."""
    from transformer.experiment import Experiment
    from transformer.run_directory import read_config

    read_config(options.workdir)  # no run there: say so before JAX is loaded
    runtime.prepare()
    from transformer.training import trained_parameters

    chosen = {name: getattr(options, name) for name in ("beam", "alpha", "n_best", "weights")}
    decoding = {name: value for name, value in chosen.items() if value is not None}
    here = {  # these devices and what serves on them, not those it was trained on
        "mesh": {"data": -1, "fsdp": 1, "tensor": 1, "sequence": 1},
        "model": {"attention": {"backend": "auto"}},
    }
    experiment = Experiment.open(options.workdir, decoding=decoding, **here)
    return experiment, *trained_parameters(experiment, options.checkpoint)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transformer",
        description="Trains, evaluates and looks into sequence-to-sequence models.",
        epilog="`transformer COMMAND --help` says more. The README shows a whole session.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        run: Callable[[argparse.Namespace], Exit], summary: str, epilog: str = ""
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            run.__name__,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(train, "train an experiment, or go on with one", CONFIG_HELP + EXIT_HELP)
    _add_config(sub)
    sub.add_argument(
        "--workdir",
        type=local_path,
        help="the run's directory: made where it is not there, gone on with where it is "
        "(default: runs/NAME, NAME being config.name or a hash of the configuration)",
    )

    sub = command(evaluate, "score a run on a split of its corpus")
    _add_run(sub)
    sub.add_argument("--split", choices=("test", "dev"), default="test", help="(default: test)")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")

    sub = command(
        translate,
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

    sub = command(attention, "show which source words each target word attends to")
    _add_run(sub)
    sub.add_argument("sentence", help="a source sentence")
    sub.add_argument("--translation", help="attend from this target (default: the model's own)")
    sub.add_argument("--png", type=local_path, help="the picture (default: WORKDIR/attention.png)")

    sub = command(
        verify, "hold each attention backend to the reference, on this machine", CONFIG_HELP
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
        compare,
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
        type=local_path,
        default=Path("runs/compare"),
        help="made where it is not there, gone on with where it is (default: runs/compare)",
    )

    sub = command(
        table3, "fill AIAYN's Table 3, or another's rows, on your data and budget", EXIT_HELP
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
        type=local_path,
        default=Path("runs/table3"),
        help="made where it is not there, gone on with where it is (default: runs/table3)",
    )

    sub = command(params, "count an experiment's parameters and FLOPs", CONFIG_HELP)
    _add_config(sub)
    sub.add_argument("--length", type=_positive, default=32, help="tokens a sentence (default: 32)")
    sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:VARIANT]", help="see below")


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=local_path, required=True, help="the run's directory")
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


if __name__ == "__main__":
    console()
