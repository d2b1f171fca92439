"""The command line: `transformer COMMAND ...`, or `python -m transformer COMMAND ...`."""

import argparse
import dataclasses
import io
import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from transformer import runtime, streams
from transformer.config.experiment_files import load_config, load_rows
from transformer.errors import UserError
from transformer.options import VERIFIED, command_line
from transformer.runtime import Exit
from transformer.upstream import cpu

if TYPE_CHECKING:
    from transformer.run import Run


def console() -> None:
    """What a shell starts: this process is the command's own."""
    cpu.ask_for_huge_pages()
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
        parser = command_line(COMMANDS)
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
    experiment = Experiment(config, workdir)
    code = run(experiment)
    if code == Exit.DONE and distributed.is_first():
        split = "" if experiment.corpus.has("test") else " --split=dev"
        print(_what_next(options.config, workdir, split), file=sys.stderr, flush=True)
    return code


def _what_next(config: str, workdir: Path, split: str) -> str:
    """What one does with a run that is trained."""
    where = f"--workdir={shlex.quote(str(workdir))}"
    smoke = "smoke" in config.partition(":")[2].split(",")
    note = ":smoke is to try the code: what it learned is not meant to be good\n" if smoke else ""
    return f"{note}next: transformer evaluate {where}{split}, transformer translate {where} < FILE"


def copy(options: argparse.Namespace) -> Exit:
    runtime.prepare()
    from transformer.copying import copy as copy_run

    size = copy_run(options.source, options.target)
    print(f"{options.target} is whole: {size:,} bytes", file=sys.stderr)
    return Exit.DONE


def prepare(options: argparse.Namespace) -> Exit:
    config = load_config(options.config, options.config_arguments)
    runtime.prepare()
    from transformer.preparing import prepare as prepare_corpus

    part, of = options.part
    is_whole = prepare_corpus(config, options.to, part=part, of=of)
    if is_whole and options.to:
        print(f"next: transformer train ... --config.data.prepared={options.to}", file=sys.stderr)
    return Exit.DONE


def evaluate(options: argparse.Namespace) -> Exit:
    run = _open_run(options)
    from transformer.files import write_json

    result = run.evaluate(options.split, source=options.source, reference=options.reference)
    content = {"checkpoint": run.checkpoint, **result.as_dict()}
    table = f"{run.checkpoint}\n{result.table()}"
    _print(json.dumps(content, indent=2) if options.json else table)
    write_json(run.workdir / f"evaluation.{result.split}.json", content)
    result.write_texts(run.workdir)
    return Exit.DONE


def translate(options: argparse.Namespace) -> Exit:
    run = _open_run(options)
    from transformer.decoding import BadLines, Form, shown_as, translate_lines

    config = run.config
    form = Form(options.format, options.scores, config.decoding.n_best, shown_as(run.experiment))
    longest = max(2**16, 64 * config.data.max_length)  # bytes of a line that may fit the model
    chunks = streams.standard_input(options.chunk, longest)
    bad = BadLines()
    for output in translate_lines(run.translator, chunks, form, bad):
        streams.output(output)
    if bad.count:
        print(f"transformer: {bad}", file=sys.stderr, flush=True)
    return Exit.ERROR if bad.of_the_model or (bad.count and options.strict) else Exit.DONE


def attention(options: argparse.Namespace) -> Exit:
    run = _open_run(options)
    view = run.attention(options.sentence, options.translation)
    _print(view.text())
    png = options.png or run.workdir / "attention.png"
    view.save_png(png)
    _print(str(png))
    return Exit.DONE


def params(options: argparse.Namespace) -> Exit:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # shapes only: no accelerator is woken for them
    from transformer.models import build_model, parameters

    path, _, variant = options.config.partition(":")
    if variant == "all" and (published := load_rows(path, options.config_arguments)):
        from transformer.reports import parameter_table

        rows = [
            parameter_table.Row.of(name, config, options.length, row.published)
            for name, (config, row) in published.items()
        ]
        as_json = json.dumps([row.as_dict() for row in rows], indent=2)
        _print(as_json if options.json else parameter_table.table(rows))
        return Exit.DONE
    config = load_config(options.config, options.config_arguments)
    count = parameters.count(build_model(config.model), options.length)
    _print(json.dumps(count.as_dict(), indent=2) if options.json else count.table())
    return Exit.DONE


def verify(options: argparse.Namespace) -> Exit:
    config = load_config(options.config, options.config_arguments)
    runtime.prepare()
    from transformer import attention
    from transformer.attention import verify_report
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
        split=attention.Split.of(layout),
    )
    cells = []
    for cell in attention.verify(backends, sizes):
        cells.append(cell)
        verdict = cell.fault or (f"refuses: {cell.refused}" if cell.refused else "ok")
        print(f"{cell.backend}, {cell.use}, {cell.case}: {verdict}", file=sys.stderr, flush=True)
    if options.json:
        _print(json.dumps([dataclasses.asdict(cell) for cell in cells], indent=1))
    else:
        _print((verify_report.table if options.table else verify_report.summary)(cells))
    return Exit.ERROR if any(cell.fault for cell in cells) else Exit.DONE


def compare(options: argparse.Namespace) -> Exit:
    from transformer.config import ComparisonConfig

    config = load_config(options.config, options.config_arguments, ComparisonConfig)
    runtime.prepare()
    from transformer.reports.compare import compare as write_comparison

    return write_comparison(config, options.workdir)


def table3(options: argparse.Namespace) -> Exit:
    path, _, variant = options.config.partition(":")
    table = variant == "all" and load_rows(path, options.config_arguments, options.scale)
    if not table:
        raise UserError(
            f"--config={options.config} is no table: give FILE:all of a file with ROWS, such as "
            "experiments/table3.py:all"
        )
    runtime.prepare()
    from transformer.reports.table3 import table3 as write_table3

    return write_table3(table, range(options.seeds), options.workdir)


def _open_run(options: argparse.Namespace) -> "Run":
    """The run of `--workdir`, with the decoding that the options name."""
    from transformer.run_directory import read_config

    read_config(options.workdir)  # no run there: say so before JAX is loaded
    runtime.prepare()  # before a library that is loaded says how messages look
    from transformer.run import open_run

    all_of = {name: getattr(options, name) for name in ("beam", "alpha", "n_best", "weights")}
    chosen = {name: value for name, value in all_of.items() if value is not None}
    return open_run(options.workdir, options.checkpoint, **chosen)


def _print(text: str) -> None:
    streams.output(f"{text}\n")


COMMANDS = (prepare, train, evaluate, translate, attention, verify)
COMMANDS += (compare, table3, params, copy)

if __name__ == "__main__":
    console()
