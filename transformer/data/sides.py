"""Whether the two sides of a corpus are two: what would train on nonsense without a word."""

import filecmp
import itertools
import logging
import os
import stat

from transformer.data.lines import KEY, file_digest, open_regular, read_lines
from transformer.data.sources import Corpus, Mixture, Tfds
from transformer.data.tables import column_numbers
from transformer.data.text import Text
from transformer.errors import UserError
from transformer.storage import is_address

log = logging.getLogger(__name__)

LOOKED_AT = 1_000  # lines from the beginning of a file
NEARLY_ALL = 0.95

ALONE = "or set data.side=source for text that is its own target"


def check_sides(corpus: Corpus, split: str) -> None:
    """Warns of a file that has both sides on each line, with a tab between them.

    Raises:
        UserError: source and target are the same text.
    """
    if isinstance(corpus, Mixture):
        for part in corpus.parts.values():
            check_sides(part, split)
    elif not corpus.has(split):
        return
    elif isinstance(corpus, Tfds) and corpus.source_language == corpus.target_language:
        raise UserError(
            f"data.tfds.source_language and data.tfds.target_language are both "
            f"{corpus.source_language!r}: name two, {ALONE}"
        )
    elif isinstance(corpus, Text):
        if len(corpus.paths(split)) == 2:
            _check_files(corpus, split)
        elif _is_one_field(corpus, split):
            raise UserError(
                f"{KEY}.source_field={corpus.source_field} and {KEY}.target_field="
                f"{corpus.target_field} are one: name two, {ALONE}"
            )


def _is_one_field(corpus: Text, split: str) -> bool:
    """Whether both sides are one column, by whatever names, or one key."""
    if corpus.source_field == corpus.target_field:
        return True
    if corpus.format != "tsv" or not _has_text(*corpus.paths(split)):
        return False
    header = next(read_lines(corpus.paths(split)[0], KEY), b"")
    first, second = column_numbers(corpus.fields, header)
    return first is not None and first == second


def _check_files(corpus: Text, split: str) -> None:
    keys = f"{KEY}.{split}_source", f"{KEY}.{split}_target"
    source, target = paths = corpus.paths(split)
    if not all(map(_has_text, paths)):  # which whoever reads them will say
        return
    if same := _are_one(source, target):
        raise UserError(
            f"{keys[0]} and {keys[1]} are {same}, {source}: name a file of each side (or one of "
            f"both, with tabs between them, in {KEY}.{split}), {ALONE}"
        )
    for key, path in zip(keys, paths, strict=True):
        lines = [line.split(b"\t") for line in itertools.islice(read_lines(path, key), LOOKED_AT)]
        both = sum(len(parts) == 2 and all(part.strip() for part in parts) for parts in lines)
        if lines and both >= NEARLY_ALL * len(lines):
            log.warning(
                "%s=%s: %d of its first %d lines are two texts with a tab between them, which is "
                "read as a space: a file of both sides is named by %s.%s",
                *(key, path, both, len(lines), KEY, split),
            )


def _are_one(source: str, target: str) -> str:
    """What makes two files one, if anything does."""
    if is_address(source) or is_address(target):
        same = source == target or file_digest(source) == file_digest(target)
        return "objects of equal content" if same else ""
    if os.path.samefile(source, target):
        return "one file"
    return "files of equal content" if filecmp.cmp(source, target, shallow=False) else ""


def _has_text(path: str) -> bool:
    """Whether it is a file that can be read and has anything in it."""
    try:
        if is_address(path):
            with open_regular(path, KEY) as file:
                return bool(file.read(1))
        status = os.stat(path)
        return stat.S_ISREG(status.st_mode) and status.st_size > 0 and os.access(path, os.R_OK)
    except (OSError, ValueError):
        return False
