"""A report's folder: whose it is, who holds it, and the runs that are carried out in it."""

import contextlib
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from transformer import files, machine, run_directory, runtime
from transformer.config import is_default
from transformer.errors import UserError
from transformer.files import AnyPath
from transformer.nested import differences, matches, value_at
from transformer.reports.runs import More, Run, carry_out
from transformer.runtime import Exit
from transformer.training.progress import duration

log = logging.getLogger(__name__)


@contextlib.contextmanager
def acquire(
    workdir: AnyPath, name: str, config: dict[str, Any], may_change: Sequence[str]
) -> Iterator[None]:
    """Makes a folder the report's of this configuration, or checks that it is, and holds it.

    A signal then ends the process at once, with the code of one that has saved all: what is
    measured is written whole, and a training that is going on takes signals itself.

    Args:
        workdir: the folder.
        name: of the file in it that holds the configuration.
        config: JSON-ready.
        may_change: keys that may differ when the report is gone on with.

    Raises:
        UserError: it holds another report, or something else, or another process holds it.
    """
    path = workdir / name
    _refuse_another(path, config, may_change)
    workdir.mkdir(parents=True, exist_ok=True)
    with run_directory.lock(workdir):
        files.write_json(path, config)
        for number in runtime.stop_signals():
            signal.signal(number, lambda *_: os._exit(Exit.PREEMPTED))
        yield


def made() -> dict[str, Any]:
    """The command that makes a report, and the machine."""
    described = machine.describe()
    keys = ("git", "python", "packages", "platform", "cores", "devices")
    command = shlex.join(["transformer", *sys.argv[1:]])
    return {"command": command, **{key: described[key] for key in keys}}


def said(made: dict[str, Any]) -> str:
    """Puts `made` into a phrase."""
    return (
        f"`{made['command']}` on {made['cores']} cores, {made['devices']} ({made['platform']}), "
        f"jax {made['packages']['jax']}"
    )


def _refuse_another(path: AnyPath, config: dict[str, Any], may_change: Sequence[str]) -> None:
    workdir = path.parent
    if not path.exists():
        if not run_directory.is_empty(workdir, path.name):
            raise UserError(
                f"{workdir} exists and holds no {path.name}: it is no report's, take another "
                "--workdir"
            )
        return
    try:
        theirs = files.read_json(path)
    except files.Damaged as error:
        raise UserError(f"{path} is damaged ({error}): bring it back, or delete it") from None
    differ = [
        key
        for key in differences(config, theirs)
        if not matches(key, may_change)
        and not (value_at(theirs, key) is None and is_default(key, value_at(config, key)))
    ]
    if differ and any(workdir.glob("results/*")):  # before the first there is nothing to lose
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise UserError(
            f"{workdir} holds another report, whose {', '.join(differ[:4])}{more} differ: take "
            "another --workdir"
        )


def carry_out_all(runs: Sequence[Run], split: str, more: More | None = None) -> Exit:
    """Each run that has no result yet; see `runs.carry_out`.

    Raises:
        UserError: a corpus lacks the split, or a run cannot be trained.
    """
    left = [run for run in runs if run.result() is None]
    for run in left:
        if not run.experiment.corpus.has(split):
            raise UserError(f"{run.task}: {run.name} has no {split} set to be scored on: give one")
    began = time.monotonic()
    for done, run in enumerate(left):
        seconds = (time.monotonic() - began) / max(done, 1) * (len(left) - done)
        about = f", about {duration(seconds)} left in all" if done else ""
        number = len(runs) - len(left) + done + 1
        log.info(
            "\n[%d/%d] %s: %s, seed %d%s", number, len(runs), run.task, run.name, run.seed, about
        )
        if (code := carry_out(run, split, more)) != Exit.DONE:
            return code
    return Exit.DONE
