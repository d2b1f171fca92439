"""Text files as passages: what a language model goes on with, and what it goes on from.

A passage is some consecutive lines of a file, its first ones the prompt and the others the target.
It is written as one line, which every command reads and prints: ⏎ ends a line, ⇥ is a tab, and ␣ is
a space that is not a single one between words. So nothing is lost but spaces at the ends of lines.

    def f(x):
        return x        is        def f(x):⏎␣␣␣␣return x
"""

import glob
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from transformer.config.sources import FilesConfig
from transformer.data.lines import CONTROL, GZIP, Digests, digest, file_digest
from transformer.data.pairs import Pair, Problem
from transformer.errors import UserError

KEY = "data.files.patterns"
NEWLINE, TAB, SPACE = "⏎", "⇥", "␣"
PACKAGE = Path(__file__).parents[1]

_runs = re.compile("^ +| {2,}", re.MULTILINE)


def as_line(text: str) -> str:
    """Text of any number of lines as one."""
    text = re.sub("[ \t\r]+$", "", text, flags=re.MULTILINE)
    text = _runs.sub(lambda run: SPACE * len(run[0]), text)
    return text.replace("\t", TAB).replace("\n", NEWLINE)


def as_text(line: str) -> str:
    """The way back."""
    return line.replace(NEWLINE, "\n").replace(TAB, "\t").replace(SPACE, " ")


def _matching(pattern: str) -> set[Path]:
    """The files that a glob names; a path that is there names itself, brackets and all."""
    if Path(pattern).is_dir():
        raise UserError(f"{KEY}: {pattern} is a folder: name its files, such as {pattern}/**/*.txt")
    named = [pattern] if Path(pattern).exists() else glob.glob(pattern, recursive=True)
    if files := {Path(path) for path in named if not Path(path).is_dir()}:
        return files
    raise UserError(f"{KEY}: {pattern} matches no file: check the path or the glob")


@dataclass(frozen=True)
class Files(FilesConfig):
    """Any text files, UTF-8, plain or gzip; each belongs to one split, by a hash of its content.

    One in ten is for development and one for testing: so copies of a file share a split, and what
    is tested was not trained on.
    """

    _digests: Digests = field(default_factory=Digests, init=False, repr=False, compare=False)

    def has(self, split: str) -> bool:
        return bool(self._paths[split])

    def pairs(self, split: str) -> Iterator[Pair]:
        """Prompts and what follows; that a prompt is empty is no problem here."""
        if not self.has(split):
            raise UserError(
                f"none of the {sum(map(len, self._paths.values()))} files of data.files.patterns "
                f"falls to {split}: a file's content decides, so give more files"
            )
        passages = [passage for path in self._paths[split] for passage in self._passages(path)]
        limit = {"dev": self.dev_size, "test": self.test_size}.get(split, len(passages))
        count = min(limit, len(passages))
        for index in range(count):  # evenly from all
            yield self._pair(passages[index * len(passages) // count], split)

    def fingerprint(self, split: str) -> str:
        kind = (self.lines, self.prompt_lines, self.unprompted, self.dev_size, self.test_size)
        contents = [self._digests.of(path, KEY) for path in self._paths[split]]
        return digest("files", split, kind, contents, file_digest(__file__))

    def origins(self, split: str) -> dict[str, str]:
        where = ", ".join(self.patterns) or f"the source code in {PACKAGE}"
        return {"files": f"{len(self._paths[split])} files of {where}"}

    @cached_property
    def _paths(self) -> dict[str, list[Path]]:
        """The files of each split, by their names."""
        found = set[Path]().union(*map(_matching, self.patterns))
        if not self.patterns:
            found = set(PACKAGE.rglob("*.py"))
        paths: dict[str, list[Path]] = {"train": [], "dev": [], "test": []}
        for path in sorted(found):
            self._digests.take(path, KEY)
            tenth = int(hashlib.sha256(self._content(path)).hexdigest()[:8], 16) % 10
            paths[{0: "dev", 1: "test"}.get(tenth, "train")].append(path)
        return paths

    def _passages(self, path: Path) -> Iterator[bytes]:
        """Consecutive lines, none of them twice; those without any text are left out."""
        lines = io.BytesIO(self._content(path)).readlines()  # which end at \n and nowhere else
        for start in range(0, len(lines), self.lines):
            passage = b"".join(lines[start : start + self.lines])
            if passage.strip():
                yield passage

    def _content(self, path: Path) -> bytes:
        """Unpacked, of a file that is what was fingerprinted."""
        try:
            content = path.read_bytes()
            self._digests.check(path, hashlib.sha256(content).hexdigest())
            return gzip.decompress(content) if content.startswith(GZIP) else content
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{path}: not a whole gzip file ({error}); copy it again") from error
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; check the path in {KEY}") from error

    def _pair(self, passage: bytes, split: str) -> Pair:
        problems = Problem(0)
        try:
            text = passage.decode("utf-8")
        except UnicodeDecodeError:
            text = passage.decode("utf-8", errors="replace")
            problems |= Problem.NOT_UTF8
        lines = as_line(text).removesuffix(NEWLINE).split(NEWLINE)
        count = self.prompt_lines if len(lines) > self.prompt_lines else 0
        drawn = int.from_bytes(hashlib.sha256(passage).digest()[:4], "big") / 2**32
        if split == "train" and drawn < self.unprompted:
            count = 0
        sides = [
            "".join(line + NEWLINE for line in part) for part in (lines[:count], lines[count:])
        ]
        if any(map(CONTROL, sides)):
            problems |= Problem.CONTROL_CHARACTERS
        return Pair(sides[0], sides[1], problems)
