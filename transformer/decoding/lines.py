"""Translations as lines of output, and the bad lines of input that cost only themselves."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from transformer.decoding.translate import NOT_FINITE, Translation, Translator
from transformer.streams import BadLine

NAMED = 5  # bad lines of which the warning says why


@dataclass(frozen=True)
class Form:
    """How translations are written: `n_best` lines for each line of input, all of one form."""

    name: str  # plain | indexed | moses
    scores: bool  # a column of them; `moses` always has it
    n_best: int
    show: Callable[[str, str], str]  # see `shown_as`

    def lines(
        self, number: int, sentence: str | BadLine, translations: list[Translation] | BadLine
    ) -> list[str]:
        """The output for one line of input. What is not there is empty, and its score is -inf.

        Args:
            number: of the line, from 1.
            sentence: the line.
            translations: what came of it.
        """
        if isinstance(sentence, BadLine) or isinstance(translations, BadLine):
            translations = []
        missing = self.n_best - len(translations)
        texts = [self.show(str(sentence), translation.text) for translation in translations]
        scores = [translation.score for translation in translations]
        written = zip([*texts, *[""] * missing], [*scores, *[-math.inf] * missing], strict=True)
        return [self._line(number, rank, *each) for rank, each in enumerate(written, start=1)]

    def _line(self, number: int, rank: int, text: str, score: float) -> str:
        if self.name == "moses":  # where a bar has a meaning
            return f"{number - 1} ||| {text.replace('|', '&#124;')} ||| {score:.4f}"
        columns = [str(number), str(rank)] if self.name == "indexed" else []
        return "\t".join([*columns, *[f"{score:.4f}"] * self.scores, text])


@dataclass
class BadLines:
    """The numbers of lines without a translation, and why; of many, only how many."""

    count: int = 0
    of_the_model: bool = False  # its scores were no numbers: the lines are good
    _named: list[str] = field(default_factory=list)

    def note(self, number: int, line: BadLine) -> None:
        self.count += 1
        self.of_the_model |= line is NOT_FINITE
        if len(self._named) < NAMED:
            self._named.append(f"line {number:,} {line.why}")

    def __str__(self) -> str:
        more = f"; and {self.count - NAMED:,} more" if self.count > NAMED else ""
        lines = "1 line has" if self.count == 1 else f"{self.count:,} lines have"
        return f"{lines} no translation, and empty output: {'; '.join(self._named)}{more}"


def translate_lines(
    translator: Translator,
    chunks: Iterable[tuple[int, list[str | BadLine]]],
    form: Form,
    bad: BadLines,
) -> Iterator[str]:
    """The output for each chunk of lines.

    Args:
        translator: gives `form.n_best` translations a line at most.
        chunks: lines, and the number of the first; see `streams.standard_input`.
        form: of the output.
        bad: notes lines that have no translation.
    """
    for first, lines in chunks:
        output: list[str] = []
        results = zip(lines, translator.translate_each(lines), strict=True)
        for number, (line, result) in enumerate(results, first):
            if isinstance(result, BadLine):
                bad.note(number, result)
            output += form.lines(number, line, result)
        yield "".join(f"{text}\n" for text in output)
