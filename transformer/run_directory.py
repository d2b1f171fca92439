"""A run's directory holds all that is needed to understand and repeat the run:

    config.json        the resolved configuration            checkpoints/   by step (training)
    environment.json   versions and machine, a start a row   metrics.jsonl  (training/metrics.py)
    corpus.json        what the text's content was           tensorboard/   the same numbers
    data_report.json   what is wrong with the text, by line  damaged/       unusable checkpoints
    tokenizer.model    SentencePiece, trained on the corpus
    choices.json       what was chosen by the text, once: BLEU's tokenizer, the model's vocabulary
    evaluation.SPLIT.json, translations.SPLIT.txt            of `transformer evaluate`; SPLIT of a
                                                             file is file.NAME, its reference's
    trees.SPLIT.txt    of treebanks: the same with the words, bracketed, a tree a line

A process that trains holds the directory: a second one is refused. In a bucket all this lies in a
folder of `transformer.storage`.
"""

import contextlib
import dataclasses
import fcntl
import logging
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from transformer import distributed, machine
from transformer.config import Config, is_default
from transformer.config.experiment import CACHES, FILES, PLACEMENT_KEYS
from transformer.config.renamed import with_new_names
from transformer.errors import UserError
from transformer.files import AnyPath, Damaged, leftovers, read_json, write_json
from transformer.nested import differences, matches, value_at, without
from transformer.storage import BucketPath, owning

log = logging.getLogger(__name__)

LOCK = ".lock"
CHOICES = "choices.json"
# What may differ when a run goes on: where it runs, how long, what it shows, how it decodes.
MAY_CHANGE = (
    *PLACEMENT_KEYS,
    "model.attention",  # how it is computed, not what
    "decoding",
    "checkpoints",
    "divergence",
    "early_stopping.patience",
    "evaluation.bleu_tokenizer",  # what the run is scored with already is kept: see `choose`
    "evaluation.metrics",
    "training.steps",
    "training.minutes",
    "training.log_every",
    "training.eval_samples",
    *FILES,
)


ADDED_LATER = ("evaluation",)  # sections that old runs lack


def read_config(workdir: AnyPath) -> dict[str, Any]:
    """The resolved configuration that a run directory holds.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = workdir / "config.json"
    try:
        tree = with_new_names(read_json(path))
    except FileNotFoundError:
        if isinstance(workdir, BucketPath):
            workdir.root.is_foreign()  # which says where there is no bucket
        raise UserError(
            f"{workdir} holds no run (no config.json): give a folder that `transformer train` made"
        ) from None
    except (OSError, Damaged) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or train anew") from error
    for field in dataclasses.fields(Config):  # a key may be younger than a run; these are not
        if field.name not in {*tree, *ADDED_LATER}:
            raise UserError(f"{path} is damaged: it has no {field.name}: restore it")
    return tree


@contextlib.contextmanager
def acquire(workdir: AnyPath, config: Config) -> Iterator[None]:
    """Makes a directory the run of this configuration, or checks that it is, and holds it.

    Raises:
        UserError: it holds a run of another configuration (says which keys differ), something
            else, or a run that is going on; or the run's processes were not told the same.
    """
    mine = config.as_dict()
    if distributed.count() > 1:
        identity = without(mine, ("distributed", *CACHES, *FILES))
        distributed.agree("configuration", identity, "start all with the same command")
        installed = machine.describe_software()
        distributed.agree("installation", installed, "install the same on all machines")
    with contextlib.ExitStack() as stack:
        distributed.first_then_all("acquire", lambda: _acquire(workdir, mine, stack))
        distributed.agree(
            "folder", _owner(workdir), f"--workdir={workdir} must be one that all processes share"
        )
        yield


def _owner(workdir: AnyPath) -> str:
    """What the holder of a directory wrote into its lock: another for each; "" where none is."""
    if isinstance(workdir, BucketPath):
        owner = workdir.root.join()
        return owner.id if owner else ""
    try:
        return (workdir / LOCK).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _acquire(workdir: AnyPath, mine: dict[str, Any], stack: contextlib.ExitStack) -> None:
    path = workdir / "config.json"
    if not path.exists() and not is_empty(workdir, path.name):
        raise UserError(
            f"{workdir} exists and is no run directory (no config.json): take another --workdir"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    stack.enter_context(lock(workdir))
    if has_checkpoints(workdir):
        _refuse_differences(workdir, mine)
    else:  # it never came to a checkpoint: nothing is lost by starting anew
        for name in ("tokenizer.model", "metrics.jsonl", "corpus.json", CHOICES):
            (workdir / name).unlink(missing_ok=True)
    write_json(path, mine)
    starts = workdir / "environment.json"
    try:
        before = read_json(starts, list) if starts.exists() else []
    except Damaged as error:
        log.warning("%s is damaged (%s): it begins anew", starts, error)
        before = []
    write_json(starts, [*before, machine.describe()])


def has_checkpoints(workdir: AnyPath) -> bool:
    """Whether a run has come so far that its directory holds something of value."""
    folder = workdir / "checkpoints"
    return folder.exists() and any(path.name.isdigit() for path in folder.iterdir())


def is_empty(workdir: AnyPath, first: str) -> bool:
    """Whether a folder holds nothing but what a start leaves that was killed early.

    Args:
        workdir: the folder, which may not be there.
        first: the file that a start writes first.
    """
    if isinstance(workdir, BucketPath):
        return not workdir.exists() and not workdir.root.is_foreign()
    if not workdir.exists():
        return True
    ours = {workdir / LOCK, *leftovers(workdir / first)}
    return workdir.is_dir() and ours >= {*workdir.iterdir()}


@contextlib.contextmanager
def lock(workdir: AnyPath) -> Iterator[None]:
    """Holds a directory until this process is done with it, or dead.

    Raises:
        UserError: another process holds it.
    """
    if isinstance(workdir, BucketPath):
        with owning(workdir.root):
            yield
        return
    with (workdir / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{workdir} is being trained by another process: wait for it, or take another "
                "--workdir"
            ) from None
        file.truncate(0)
        file.write(uuid.uuid4().hex)
        file.flush()
        yield


def require_held(workdir: AnyPath) -> None:
    """Raises UserError where another process has taken over a directory in a bucket.

    It asks no store: signs of life, and whatever is written, have noticed.
    """
    if isinstance(workdir, BucketPath):
        workdir.root.require_own()


def _refuse_differences(workdir: AnyPath, mine: dict[str, Any]) -> None:
    theirs = read_config(workdir)
    differ = [
        key
        for key in differences(mine, theirs)
        if not matches(key, MAY_CHANGE)
        # A key that came after the run: its default is what was done before.
        and not (value_at(theirs, key) is None and is_default(key, value_at(mine, key)))
    ]
    if differ:
        differences_text = "; ".join(
            f"{key} is {value_at(mine, key)!r} here, {value_at(theirs, key)!r} there"
            for key in differ[:4]
        )
        raise UserError(
            f"{workdir} holds a run of another configuration ({differences_text}"
            f"{'; ...' if len(differ) > 4 else ''}): take another --workdir"
        )


def require_same(
    workdir: AnyPath, name: str, fingerprint: str, what: str, *, note: bool = True
) -> None:
    """Notes what the content of something was, or refuses one that has changed since.

    Args:
        workdir: the run's directory.
        name: of a split of the corpus ("train set"), or "tokenizer".
        fingerprint: of its content.
        what: is to be brought back where it changed.
        note: False where it was not read to its end yet: then it is compared alone.

    Raises:
        UserError: it has.
    """
    distributed.agree(name, fingerprint, f"give all of them the same: {what}")
    distributed.first_then_all(
        f"same {name}", lambda: _compare(workdir, name, fingerprint, what, note)
    )


def _compare(workdir: AnyPath, name: str, fingerprint: str, what: str, note: bool) -> None:
    path = workdir / "corpus.json"
    try:
        known = read_json(path) if path.exists() else {}
    except Damaged as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it if the text is the same"
        ) from error
    if name not in known:
        if note:
            write_json(path, {**known, name: fingerprint})
    elif known[name] != fingerprint:
        raise UserError(
            f"the {name} is not the one that the run in {workdir} began with: bring {what} back, "
            "or take another --workdir"
        )


def choose(workdir: AnyPath, name: str, make: Callable[[], Any]) -> Any:
    """What a run chose when it was first asked; `make` says what, JSON-ready, and it is kept.

    Raises:
        UserError: what was kept is damaged.
    """

    def first() -> None:
        if name not in (known := chosen(workdir)):
            write_json(workdir / CHOICES, {**known, name: make()})

    distributed.first_then_all(f"choice of {name}", first)
    return chosen(workdir)[name]


def chosen(workdir: AnyPath) -> dict[str, Any]:
    """What a run has chosen so far, by name. Raises UserError where it is damaged."""
    path = workdir / CHOICES
    try:
        return read_json(path) if path.exists() else {}
    except Damaged as error:
        raise UserError(
            f"{path} is damaged ({error}): bring it back, or take another --workdir"
        ) from error
