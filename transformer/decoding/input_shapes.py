"""The shapes that sentences are padded to: few, since each is a program to compile."""

from dataclasses import dataclass

SHORT = 32  # tokens


@dataclass(frozen=True)
class InputShapes:
    """The shapes that sentences are padded to, so that few searches are compiled.

    Attributes:
        max_length: source tokens that the model takes, `</s>` included.
        max_output_length: output tokens at most, `</s>` included, whatever the source's length and
            `extra_length`; None: these alone say.
        row_multiple: rows of every batch are a multiple of this.
        length_multiple: source lengths are a multiple of this.
    """

    max_length: int = 256
    max_output_length: int | None = None
    row_multiple: int = 8
    length_multiple: int = 8

    def length(self, longest: int, sentences: int) -> int:
        """The length that sentences are padded to, the longest of which has `longest` tokens.

        A few sentences have `SHORT` at least: who looks at one after another compiles one program.
        """
        at_least = longest if sentences > self.row_multiple else max(longest, SHORT)
        buckets = bucket_lengths(self.max_length, self.length_multiple)
        return next(size for size in buckets if size >= min(at_least, buckets[-1]))


def bucket_lengths(max_length: int, multiple: int) -> list[int]:
    """Few lengths up to `max_length`, about half as long again each, all multiples of `multiple`.

    bucket_lengths(100, 8) == [8, 16, 24, 32, 48, 72, 104]
    """
    most = -(-max_length // multiple)
    counts = [1]
    while counts[-1] < most:
        counts.append(min(counts[-1] + max(1, counts[-1] // 2), most))
    return [count * multiple for count in counts]
