"""SentencePiece: one vocabulary for both languages, with bytes for what it does not know.

Normalisation is lighter than SentencePiece's default (NFKC), which would rewrite the text that we
are to produce (½, ², …, ™): canonical composition (NFC), any whitespace as one space, none at the
ends, no control characters; lower case where asked for. Text so normalised comes back from
`decode(encode(text))` unchanged, in any script. All of it is a table in the model file, but for NFC
of several marks on a letter, which no table can hold: the name of the normalisation in the file
says that the text is composed before SentencePiece sees it. A model from before has no such name,
and encodes as it did when it was trained.
"""

import functools
import hashlib
import io
import logging
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import sentencepiece
from jaxtyping import Integer

from transformer import files
from transformer.batch import BOS, EOS, PAD
from transformer.data import lines, normal_forms, subwords
from transformer.data.lines import digest, file_digest
from transformer.data.normal_forms import INVISIBLE, composed_without_invisible, lowercased
from transformer.data.pairs import Pair
from transformer.data.training_lines import MANY, alphabet, training_lines
from transformer.errors import UserError

log = logging.getLogger(__name__)
Item = TypeVar("Item")

UNK = 3  # beside PAD, BOS and EOS
MASK = UNK  # bytes spell what has no piece, so no text is ever encoded with it

# Unigram training sums in as many parts as it has threads: a fixed number, whatever the machine's
# cores, makes the same model everywhere.
TRAINING_THREADS = 16

# What is done to text before SentencePiece, by the name of the normalisation in a model file.
RULES: dict[str, Callable[[str], str]] = {
    "nfc": composed_without_invisible,
    "nfc_lowercase": lowercased,
}
BEFORE_RULES = "user_defined"  # how the normalisation was called before it had one of these names


def train(
    pairs: Iterable[Pair],
    path: files.AnyPath,
    *,
    kind: str,
    vocab_size: int,
    character_coverage: float,
    lowercase: bool,
    train_sentences: int,
    split_scripts: bool,
) -> None:
    """Trains a joint model on both sides of `pairs` and writes it to `path`.

    The model has fewer than `vocab_size` pieces where the text does not support as many.

    Args:
        pairs: read once.
        kind: "bpe" or "unigram".
        vocab_size: pieces at most; the four special ones and 256 bytes included.
        character_coverage: share of the text's characters that get a piece of their own.
        lowercase: lower case is part of the normalisation.
        train_sentences: pairs used at most, evenly spaced over all of them.
        split_scripts: no piece has characters of two scripts: "(NP" is two pieces at least.

    Raises:
        UserError: `vocab_size` is too small for the alphabet, or there is no text.
    """
    chosen = evenly_spaced(pairs, train_sentences)
    rule = "nfc_lowercase" if lowercase else "nfc"
    texts = (RULES[rule](side) for pair in chosen for side in (pair.source, pair.target))
    sentences = list(training_lines(texts))
    letters = _letters(sentences, lowercase)
    if not letters:
        raise UserError(
            "no sentences to train a tokenizer on: the training split has no text but spaces and "
            "control characters"
        )
    # The trainer's options stand in the model file, even those that say what it does anyway.
    more: dict[str, Any] = {} if split_scripts else {"split_by_unicode_script": False}
    more |= {"model_type": kind, "vocab_size": vocab_size, "character_coverage": character_coverage}
    whole = character_coverage == 1.0
    if whole and sum(map(len, sentences)) > MANY:
        more["required_chars"] = "".join(letters)
    content = _finished(_train(sentences, lowercase, more), rule)
    # It counts no letter of a line that spells a special piece.
    if whole and not {*letters} <= {piece.piece for piece in model_proto(content).pieces}:
        more["required_chars"] = "".join(letters)
        content = _finished(_train(sentences, lowercase, more), rule)
    files.write(path, content)
    size = SentencePieceTokenizer(content).size
    if size < vocab_size:
        log.info("%s has %d pieces: the text supports no more (%d allowed)", path, size, vocab_size)


def _train(sentences: list[str], lowercase: bool, options: dict[str, Any]) -> bytes:
    """The model that SentencePiece makes of these sentences; `options`: more of the trainer's."""
    log.info("training a tokenizer on %d lines of text", len(sentences))
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as rules:
        rules.write(_normalization_rules(lowercase))
        rules.flush()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=model,
                hard_vocab_limit=False,
                byte_fallback=True,
                normalization_rule_tsv=rules.name,
                pad_id=PAD,
                bos_id=BOS,
                eos_id=EOS,
                unk_id=UNK,
                num_threads=TRAINING_THREADS,
                minloglevel=2,
                **options,
            )
        except RuntimeError as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(
                f"data.tokenizer.vocab_size={options['vocab_size']} cannot be trained on this text "
                f"({reason}); more pieces or a smaller "
                "data.tokenizer.character_coverage may help"
            ) from error
    return model.getvalue()


def key(corpus: str, left_out: int, options: dict[str, Any]) -> str:
    """The name of the model that this code makes of a corpus's training split.

    Args:
        corpus: its fingerprint.
        left_out: of its pairs: `Problem`s.
        options: of `train`.
    """
    sources = (
        __file__,
        lines.__file__,
        normal_forms.__file__,
        training_lines.__code__.co_filename,
    )
    version = (sentencepiece.__version__, *map(file_digest, sources))
    return digest("tokenizer", corpus, int(left_out), options, *version)[:20]


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids, without special ones, and back; a class of one's own answers it, too.

    A class of one's own also has `train(pairs, **data.tokenizer.options) -> bytes`, static, and is
    made of those bytes: they are what a run keeps.
    """

    size: int  # ids are below it; 0 to 3 are PAD, BOS, EOS and UNK
    fingerprint: str  # hexadecimal; another one is another tokenizer
    composes: bool  # whether text is compared in NFC where translations are scored

    def encode(self, sentences: list[str], /) -> list[list[int]]: ...

    def decode(self, ids: Sequence[Sequence[int]], /) -> list[str]: ...

    def pieces(self, ids: Sequence[int], /) -> list[str]:
        """What each id stands for, to label an axis with."""
        ...


class SentencePieceTokenizer:
    """A SentencePiece model. Ids are below `size`; PAD, BOS, EOS and UNK are 0, 1, 2 and 3.

    Attributes:
        model: the content of its file.
        size: its number of pieces.
        fingerprint: hexadecimal, of the content.
        composes: False: trained here before text was composed; its runs are scored as they were.
    """

    def __init__(self, model: bytes, *, threads: int = -1):
        self._threads = threads
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        self.model = model
        self.size: int = self._processor.get_piece_size()
        self.fingerprint: str = hashlib.sha256(model).hexdigest()
        normalization = model_proto(model).normalizer_spec.name
        # None: trained elsewhere, or before text was composed: it encodes as it did there.
        self._rule = RULES.get(normalization)
        self.composes = normalization != BEFORE_RULES

    @classmethod
    def load(cls, path: files.AnyPath, key: str = "") -> Self:
        """Reads a model file that `key` names, if any does.

        Raises:
            UserError: there is none, or it is damaged.
        """
        what = f"{key}={path}" if key else path
        try:
            model = path.read_bytes()
        except OSError as error:
            raise UserError(f"{what}: {error.strerror}; no tokenizer there") from error
        try:
            if not model:  # SentencePiece takes nothing for a model without pieces
                raise RuntimeError("an empty file")
            return cls(model)
        except RuntimeError as error:
            raise UserError(f"{what}: not a SentencePiece model, or a damaged one") from error

    def encode(self, sentences: list[str]) -> list[list[int]]:
        """Ids of each sentence, without BOS or EOS."""
        return self._processor.encode(self._prepared(sentences), num_threads=self._threads)

    def sample(
        self, sentences: list[str], probability: float, seeds: Integer[np.ndarray, " n"]
    ) -> list[list[int]]:
        """Ids of each sentence, cut into pieces at random; see `subwords.sample`.

        Each sentence's seed alone decides how it is cut, in this process and in any other.
        """
        kind, scores = self._scores
        ids = []
        normal = self._processor.normalize(self._prepared(sentences))
        for text, seed in zip(normal, seeds.tolist(), strict=True):
            pieces = []
            for number, part in enumerate(self._between_symbols(text)):
                if number % 2:  # a symbol
                    pieces.append(part)
                else:
                    pieces += subwords.sample(
                        part, scores, kind=kind, probability=probability, seed=seed + number
                    )
            ids.append([i for piece in pieces for i in self._ids(piece)])
        return ids

    @functools.cached_property
    def _between_symbols(self) -> Callable[[str], list[str]]:
        """Splits a text at the symbols that the model's maker defined: text, symbol, text ..."""
        proto = model_proto(self.model)
        symbols = [p.piece for p in proto.pieces if p.type == p.USER_DEFINED]
        if not symbols:
            return lambda text: [text]
        longest_first = sorted(symbols, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})").split

    def _prepared(self, sentences: list[str]) -> list[str]:
        rule = self._rule
        if rule is None:
            return sentences
        return [text if text.isascii() else rule(text) for text in sentences]

    @functools.cached_property
    def _scores(self) -> tuple[str, dict[str, float]]:
        """The model's kind, and the score of each piece that text is cut into."""
        proto = model_proto(self._processor.serialized_model_proto())
        spec = proto.trainer_spec
        kind = spec.ModelType.Name(spec.model_type).lower()
        return kind, {p.piece: p.score for p in proto.pieces if p.type == p.NORMAL}

    def _ids(self, piece: str) -> list[int]:
        """The ids of a piece, or of the bytes of a character that is none."""
        known = self._processor.piece_to_id(piece)
        if known != UNK:
            return [known]
        if not self._spells:
            return [UNK]
        return [self._processor.piece_to_id(f"<0x{byte:02X}>") for byte in piece.encode()]

    @property
    def can_sample(self) -> bool:
        """Whether sentences can be cut at random: by BPE or unigram pieces."""
        return self._scores[0] in ("bpe", "unigram")

    @functools.cached_property
    def _spells(self) -> bool:
        """Whether what has no piece is spelled in bytes."""
        return self._processor.piece_to_id("<0x00>") != UNK

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Text of each sequence; special ids and those above the vocabulary are dropped.

        A model's embedding may have more rows than the vocabulary has pieces, so it can emit such.
        """
        pieces = [[int(i) for i in sequence if UNK < i < self.size] for sequence in ids]
        return self._processor.decode(pieces, num_threads=-1) if pieces else []

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each id stands for; a word's first piece starts with ▁."""
        known = self._processor.id_to_piece
        return [known(int(i)) if 0 <= i < self.size else f"<{i}>" for i in ids]


def evenly_spaced(items: Iterable[Item], limit: int) -> list[Item]:
    """At most `limit` items of a stream of unknown length, at equal distances, in one pass."""
    kept, distance = [], 1
    for index, item in enumerate(items):
        if index % distance == 0:
            kept.append(item)
            if len(kept) > limit:
                del kept[1::2]
                distance *= 2
    return kept


@functools.cache
def _rules(lowercase: bool) -> dict[str, str]:
    """What SentencePiece's normaliser makes of which characters."""
    rules = {}
    for code in (*range(1, 0xD800), *range(0xE000, 0x110000)):  # all but NUL and surrogates
        character = chr(code)
        if character.isspace() or character == "▁":  # ▁ is how SentencePiece writes a space
            result = " "
        elif unicodedata.category(character) == "Cc" or character in INVISIBLE:
            result = ""
        else:
            result = unicodedata.normalize("NFC", character)
        if lowercase:
            result = result.lower()
        parts = unicodedata.normalize("NFD", character)
        halfway = unicodedata.normalize("NFC", parts[:-1]) + parts[-1:]
        for spelling in (character, parts, halfway):
            if spelling != result:
                rules[spelling] = result
    return rules


def _normalization_rules(lowercase: bool) -> str:
    """SentencePiece's table: one "code points TAB code points" a line, in hexadecimal."""

    def hexadecimal(text: str) -> str:
        return " ".join(f"{ord(character):X}" for character in text)

    return "".join(f"{hexadecimal(a)}\t{hexadecimal(b)}\n" for a, b in _rules(lowercase).items())


def _letters(sentences: list[str], lowercase: bool) -> list[str]:
    """The characters that normalised sentences have, spaces aside."""
    rules = _rules(lowercase)
    normal = {rules.get(character, character) for character in alphabet(sentences)}
    return sorted(set("".join(normal)) - {" ", "\0"})


def model_proto(model: bytes) -> Any:
    """A SentencePiece model file's content, to be read and changed."""
    from sentencepiece import sentencepiece_model_pb2

    return sentencepiece_model_pb2.ModelProto.FromString(model)  # pyright: ignore


def _finished(model: bytes, rule: str) -> bytes:
    """The model with the name of its rule, its bytes made of nothing but text and options.

    Left out are the name of the temporary table, whose rules are in the model, compiled, and the
    characters that the trainer was told to keep.
    """
    proto = model_proto(model)
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    proto.trainer_spec.ClearField("required_chars")
    proto.normalizer_spec.name = rule
    return proto.SerializeToString(deterministic=True)
