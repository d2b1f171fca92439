"""Marian's way from text to ids and back: two SentencePiece models, and a vocabulary of their own.

SentencePiece cuts the text, one model for the source and one for the target; which id a piece has
stands in vocab.json (where the sides have vocabularies of their own, also in target_vocab.json).
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
from jaxtyping import Int
from numpy import ndarray

from transformer.batch import EOS
from transformer.errors import UserError
from transformer.interop.folders import read_json

LANGUAGE = re.compile(r">>[^<]*<<")  # of the output, before the text: it is one piece
UNKNOWN = "<unk>"


class Pieces:
    """What `Translator` asks of a tokenizer, from the files that MarianTokenizer saves."""

    def __init__(self, folder: str | os.PathLike[str], ours_of: Int[ndarray, " M"]):
        """Reads source.spm, target.spm and vocab.json.

        Args:
            folder: where they are.
            ours_of: int32; our id of each of theirs: `Imported`'s.

        Raises:
            UserError: one of them is missing or damaged, or has ids that the model has not.
        """
        folder = Path(folder)
        self._source = _processor(folder / "source.spm")
        self._target = _processor(folder / "target.spm")
        own = folder / "target_vocab.json"
        self._ours = _ids(folder / "vocab.json", ours_of)
        target = _ids(own, ours_of) if own.exists() else self._ours
        self._piece = {i: piece for piece, i in target.items() if piece != UNKNOWN and i > EOS}

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Our ids of each text, without special ones; what has none is `<unk>`."""
        unknown = self._ours[UNKNOWN]
        ids = []
        for text in texts:
            language = LANGUAGE.match(text)
            code = language.group() if language else ""
            pieces = self._source.encode(text[len(code) :], out_type=str)
            ids.append([self._ours.get(p, unknown) for p in [*filter(None, [code]), *pieces]])
        return ids

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Text of each sequence; special ids are dropped."""
        pieces = [[self._piece[i] for i in row if i in self._piece] for row in ids]
        return [self._target.decode_pieces(row).replace("▁", " ").strip() for row in pieces]


def _processor(path: Path) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; Marian's tokenizer has one") from error
    except RuntimeError as error:
        raise UserError(f"{path} is no SentencePiece model, or a damaged one") from error


def _ids(path: Path, ours_of: Int[ndarray, " M"]) -> dict[str, int]:
    """Our id of each piece of a vocabulary."""
    theirs = read_json(path)
    if UNKNOWN not in theirs:
        raise UserError(f"{path} has no {UNKNOWN}; fetch it again")
    for piece, i in theirs.items():
        if not (isinstance(i, int) and 0 <= i < len(ours_of)):
            raise UserError(
                f"{path}: {piece!r} has the id {i!r}, and the model {len(ours_of)} rows: "
                "take both of one folder"
            )
    return {piece: int(ours_of[i]) for piece, i in theirs.items()}
