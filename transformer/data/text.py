"""A corpus of text files: two aligned ones a split, or one of both sides."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from transformer.config.sources import TextConfig
from transformer.data.lines import KEY, Digests, aligned, decode, digest
from transformer.data.pairs import Pair
from transformer.data.tables import READERS
from transformer.errors import UserError


@dataclass(frozen=True)
class Text(TextConfig):
    """Text files, plain or gzip, UTF-8: two aligned ones a split, or one of both sides.

    A line ends at \\n or \\r\\n and nowhere else: whatever else Unicode calls a line break belongs
    to the sentence. Files of different lengths are refused.
    """

    _digests: Digests = field(default_factory=Digests, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in ("train", "dev", "test"):
            source, target = (getattr(self, f"{split}_{side}") for side in ("source", "target"))
            if bool(source) != bool(target):
                present, missing = ("source", "target") if source else ("target", "source")
                raise UserError(
                    f"{KEY}.{split}_{present} is {source or target} but "
                    f"{KEY}.{split}_{missing} is empty: name both files, or neither"
                )
            if source and getattr(self, split):
                raise UserError(
                    f"{KEY}.{split} and {KEY}.{split}_source are both set: name one file of both "
                    "sides, or one of each"
                )

    def paths(self, split: str) -> list[str]:
        """A split's files: of source and target, or one of both; none where there is no such."""
        if both := getattr(self, split):
            return [both]
        return [path for side in ("source", "target") if (path := getattr(self, f"{split}_{side}"))]

    @property
    def fields(self) -> tuple[str, str]:
        """Source and target in a file of both: columns or keys."""
        return self.source_field, self.target_field

    def has(self, split: str) -> bool:
        return bool(self.paths(split))

    def pairs(self, split: str) -> Iterator[Pair]:
        paths = self._required(split)
        if len(paths) == 1:
            lines = READERS[self.format](paths[0], self.fields, self._digests)
        else:
            lines = aligned(paths[0], paths[1], self._digests)
        empty = True
        for pair in decode(lines):
            empty = False
            yield pair
        if empty:
            what = "this file" if len(paths) == 1 else "these files"
            raise UserError(f"{' and '.join(paths)}: no sentence pairs in {what}")

    def fingerprint(self, split: str) -> str:
        paths = self._required(split)
        how = (self.format, self.fields) if len(paths) == 1 else ()
        return digest("text", *how, *map(self._digests.take, paths))

    def origins(self, split: str) -> dict[str, str]:
        return {"text": " and ".join(self.paths(split))}

    def _required(self, split: str) -> list[str]:
        if not self.has(split):
            raise UserError(
                f"the corpus has no {split} split: set {KEY}.{split}_source and "
                f"{KEY}.{split}_target, or {KEY}.{split}"
            )
        return self.paths(split)
