"""A corpus that was prepared: its tokenizer and its tokens, in a folder of a disk or in a bucket.

    preparing.json     the keys it is prepared with; of each split, its fingerprint: written first
    prepared.json      the same, and the size of each split: written last
    tokenizer.model    what its tokens were made with
    SPLIT-KEY/         the split's tokens, in shards (data/shards.py)
    SPLIT.jsonl        its text, but for the training split's, a pair a line

`transformer prepare` makes it, and a run whose configuration names it in `data.prepared` reads no
other text. `prepared.json` is written last: until it is there, nothing is prepared.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from transformer import files
from transformer.config import DataConfig
from transformer.config.experiment import CACHES, FILES, is_default, plain
from transformer.data import shards
from transformer.data.chunks import Chunk
from transformer.data.pairs import Pair, Problem
from transformer.errors import UserError
from transformer.files import AnyPath
from transformer.nested import differences, value_at, without

INDEX, BEGUN, TOKENIZER, FORMAT = "prepared.json", "preparing.json", "tokenizer.model", 1
DECIDING = ("source", "source_options", "mixture", "side", "tokenizer")  # and the source's section


class PreparedCorpus:
    """Answers `data.Corpus`; and has a tokenizer, and the tokens of each split.

    Raises:
        UserError: nothing is prepared there, or with another configuration.
    """

    def __init__(self, folder: AnyPath, config: DataConfig):
        self._folder = folder
        path = folder / INDEX
        try:
            self._index = files.read_json(path)
            if self._index["format"] != FORMAT:
                raise UserError(f"{path} is another version's: prepare the corpus again")
            theirs, self._splits = self._index["data"], self._index["splits"]
        except FileNotFoundError:
            raise UserError(
                f"{folder} holds no prepared corpus (no {INDEX}): make one with `transformer "
                f"prepare --config=... --to={folder}`"
            ) from None
        except (OSError, files.Damaged, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({error}): delete it, and prepare the corpus again"
            ) from error
        ours = deciding_keys(config)
        for key in differences(ours, theirs):
            if value_at(theirs, key) is None and is_default(f"data.{key}", value_at(ours, key)):
                continue  # a key that came later
            raise UserError(
                f"{folder} was prepared with data.{key} = {value_at(theirs, key)!r}, here it is "
                f"{value_at(ours, key)!r}: prepare the corpus again, in another folder"
            )

    def has(self, split: str) -> bool:
        return split in self._splits

    def pairs(self, split: str) -> Iterator[Pair]:
        self._require(split)
        if split == "train":
            raise UserError(
                f"{self._folder} holds the tokens of the training split, not its text: leave out "
                "data.prepared for what reads the text"
            )
        path = self._folder / f"{split}.jsonl"
        try:
            content = path.read_bytes()
            if digest(content) != self._splits[split]["text"]:
                raise ValueError("it is not what was written")
            for line in content.removesuffix(b"\n").split(b"\n"):
                source, target, problems, part, tags = json.loads(line)
                yield Pair(source, target, Problem(problems), part, tags)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} is missing or damaged ({error}): prepare the corpus again"
            ) from error

    def fingerprint(self, split: str) -> str:
        return self._require(split)["fingerprint"]

    def origins(self, split: str) -> dict[str, str]:
        return self._require(split)["origins"]

    def bytes_of(self, split: str) -> int:
        """What the split's tokens take on a disk."""
        return self._require(split)["bytes"]

    def tokenizer(self) -> bytes:
        """The content of the tokenizer's file."""
        return (self._folder / TOKENIZER).read_bytes()

    def chunks(self, split: str, key: str) -> Iterator[Chunk]:
        """The split as tokens. Raises UserError where `key` is of another tokenizer's."""
        known = self._require(split)
        if key != known["key"]:
            raise UserError(
                f"{self._folder} was prepared with another tokenizer than this run has: begin a "
                "new --workdir, or leave out data.prepared"
            )
        folder = tokens_folder(self._folder, split, key)
        return shards.read(folder, known["shards"], self._index["vocab_size"])

    def _require(self, split: str) -> dict[str, Any]:
        if split not in self._splits:
            raise UserError(f"{self._folder} has no {split} split: it was prepared without one")
        return self._splits[split]


def deciding_keys(config: DataConfig) -> dict[str, Any]:
    """The keys of data that a corpus's tokens follow from; paths of files are none of them."""
    of_runs = ("data.tokenizer.sampling", "data.mixture.*.rate")
    names = [key.removeprefix("data.") for key in (*CACHES, *FILES, *of_runs)]
    tree = {key: value for key, value in plain(config).items() if key in (config.source, *DECIDING)}
    return without(tree, names)


def tokens_folder(folder: AnyPath, split: str, key: str) -> AnyPath:
    """The folder in which the shards of a split lie."""
    return folder / f"{split}-{key}"


def text(pairs: Iterable[Pair]) -> bytes:
    """A split's text as `SPLIT.jsonl` holds it."""
    rows = ([*pair[:2], int(pair.problems), pair.part, pair.tags] for pair in pairs)
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def digest(content: bytes) -> str:
    """What the index says of a file's content: SHA-256."""
    return hashlib.sha256(content).hexdigest()
