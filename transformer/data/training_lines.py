"""Text as SentencePiece's trainer takes all of it: what it would skip without a word, mended.

The trainer (0.2.3) leaves out a line of more than 4,192 bytes, and one that has U+2585, its own
mark for what is unknown. Of more than 2^25 characters it leaves out a few, the rarest.
"""

import unicodedata
from collections.abc import Iterable, Iterator

LONGEST = 4_192  # bytes: its option max_sentence_length, which stands in the model file
RESERVED = "\u2585"
# It adds up the share of characters with a piece in 32 bits: from here on the rarest may be lost.
MANY = 2**24


def training_lines(texts: Iterable[str]) -> Iterator[str]:
    """Splits text into lines that the trainer reads; no letter of it is lost."""
    for text in texts:
        for part in text.split(RESERVED) if RESERVED in text else (text,):
            # No character has more than four bytes.
            if 4 * len(part) <= LONGEST or len(part.encode(errors="replace")) <= LONGEST:
                yield part
            else:
                yield from cut(part)


def cut(text: str) -> Iterator[str]:
    """Pieces of at most LONGEST bytes: at spaces, or else between characters as people see them.

    A space at which a line is cut is left out.
    """
    start = 0
    while start < len(text):
        end = _end(text, start)
        if end == len(text):
            yield text[start:]
            return
        space = max(text.rfind(" ", start, end + 1), text.rfind("\t", start, end + 1))
        if space > start:
            yield text[start:space]
            start = space + 1
            continue
        at = end
        while at > start and not _parts(text, at):
            at -= 1
        if at == start:  # one character under thousands of marks
            at = end
        yield text[start:at]
        start = at


def alphabet(lines: Iterable[str]) -> set[str]:
    """The characters of some lines."""
    characters: set[str] = set()
    for line in lines:
        characters.update(line)
    return characters


def _end(text: str, start: int) -> int:
    """The last place up to which the text from `start` has LONGEST bytes at most."""
    piece = text[start : start + LONGEST].encode(errors="replace")[:LONGEST]
    return start + len(piece.decode(errors="ignore"))


def _parts(text: str, at: int) -> bool:
    """Whether what stands before a place and what stands behind it are seen as two characters."""
    before, behind = text[at - 1], text[at]
    return not (
        unicodedata.category(behind).startswith("M")
        or "\u200c" in (before, behind)
        or "\u200d" in (before, behind)
        or 0x1F3FB <= ord(behind) <= 0x1F3FF  # skin tones
        or (_is_flag(before) and _is_flag(behind))
    )


def _is_flag(character: str) -> bool:
    """Whether it is half of one: two letters make a country's."""
    return 0x1F1E6 <= ord(character) <= 0x1F1FF
