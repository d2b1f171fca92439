"""Tokenizers that are not trained here: a SentencePiece model that exists, a class of one's own."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

from transformer.batch import BOS, EOS, PAD
from transformer.data.lines import digest, open_regular
from transformer.data.pairs import Pair
from transformer.data.tokenizers import UNK, SentencePieceTokenizer, Tokenizer, model_proto
from transformer.dotted import construct, is_dotted, resolve
from transformer.errors import UserError
from transformer.files import AnyPath

KIND, PATH = "data.tokenizer.kind", "data.tokenizer.path"


def adopted(path: str) -> bytes:
    """A SentencePiece model with our special ids: pieces reordered, and none cut otherwise.

    Most models have <unk> as 0 and no <pad>; here PAD, BOS, EOS and UNK are 0 to 3, and those that
    a model lacks are added. Symbols that its maker defined stay whole pieces.

    Raises:
        UserError: there is no file, or it is no SentencePiece model.
    """
    try:
        with open_regular(path, PATH) as file:
            content = file.readall() or b""
    except OSError as error:
        raise UserError(f"{PATH}={path}: {error.strerror}; no tokenizer there") from error
    model = _loaded(content, path).model
    proto: Any = model_proto(model)
    spec, piece_type = proto.trainer_spec, type(proto).SentencePiece
    names = {
        PAD: spec.pad_piece or "<pad>",
        BOS: spec.bos_piece or "<s>",
        EOS: spec.eos_piece or "</s>",
        UNK: spec.unk_piece or "<unk>",
    }
    types = {i: piece_type.UNKNOWN if i == UNK else piece_type.CONTROL for i in names}
    first = [(piece.piece, piece.type) for piece in proto.pieces[: len(names)]]
    if first == [(names[i], types[i]) for i in range(len(names))]:
        return model
    known = {piece.piece: piece for piece in proto.pieces}
    specials = []
    for index in range(len(names)):
        name = names[index]
        special = known.pop(name, None) or piece_type(piece=name, score=0.0)
        special.type = types[index]
        specials.append(special)
    others = list(known.values())
    del proto.pieces[:]
    proto.pieces.extend([*specials, *others])
    spec.pad_id, spec.bos_id, spec.eos_id, spec.unk_id = PAD, BOS, EOS, UNK
    spec.pad_piece, spec.bos_piece = names[PAD], names[BOS]
    spec.eos_piece, spec.unk_piece = names[EOS], names[UNK]
    spec.vocab_size = len(proto.pieces)
    return _loaded(proto.SerializeToString(deterministic=True), path).model


def _loaded(content: bytes, path: str) -> SentencePieceTokenizer:
    try:
        if not content:
            raise RuntimeError("an empty file")
        return SentencePieceTokenizer(content)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"{PATH}={path} is no SentencePiece model with pieces for <pad>, <s>, </s> and <unk> "
            f"of their own ({reason}): take another"
        ) from error


def train_own(kind: str, pairs: Iterable[Pair], options: dict[str, Any]) -> bytes:
    """What a tokenizer of one's own keeps of a corpus: `Class.train(pairs, **options)`.

    Raises:
        UserError: there is no such class, or it does not take these options.
    """
    train = getattr(_own_class(kind), "train", None)
    if train is None:
        raise UserError(f"{KIND} is {kind!r}, which has no train(pairs, ...)")
    content = construct(train, options, "data.tokenizer.options", kind, given={"pairs": pairs})
    if not isinstance(content, bytes):
        raise UserError(f"{KIND} is {kind!r}, whose train gives {type(content).__name__}, no bytes")
    return content


def load_tokenizer(kind: str, path: AnyPath) -> Tokenizer:
    """The tokenizer that a run's file holds, SentencePiece's or one's own.

    Raises:
        UserError: there is none, it is damaged, or its class is not there.
    """
    if not is_dotted(kind):
        return SentencePieceTokenizer.load(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; no tokenizer there") from error
    try:
        tokenizer = _own_class(kind)(content)
    except TypeError as error:
        raise UserError(f"{KIND} is {kind!r}, which is not made of bytes: {error}") from error
    if not isinstance(tokenizer, Tokenizer):
        needed = "size, fingerprint, composes, encode, decode or pieces"
        raise UserError(f"{KIND} is {kind!r}, which lacks {needed}")
    return CheckedTokenizer(kind, tokenizer)


class CheckedTokenizer:
    """A tokenizer of one's own, whose ids are looked at: it is another's code."""

    def __init__(self, kind: str, tokenizer: Tokenizer):
        self._kind, self._tokenizer = kind, tokenizer
        self.size, own = tokenizer.size, tokenizer.fingerprint
        self.composes = bool(tokenizer.composes)
        if type(self.size) is not int or self.size <= UNK + 1:
            raise UserError(f"{KIND} is {kind!r}, whose size is {self.size!r}, no number above 4")
        if not (isinstance(own, str) and own):
            raise UserError(f"{KIND} is {kind!r}, whose fingerprint is no text")
        self.fingerprint = digest("own tokenizer", kind, own)  # two classes may keep the same bytes

    def encode(self, sentences: list[str]) -> list[list[int]]:
        rows = [[*map(operator.index, row)] for row in self._tokenizer.encode(sentences)]
        ids = [i for row in rows for i in row]
        if (
            len(rows) != len(sentences)
            or min(ids, default=UNK) < UNK
            or max(ids, default=0) >= self.size
        ):
            raise UserError(
                f"{KIND} is {self._kind!r}, whose encode gives {len(rows)} rows for "
                f"{len(sentences)} texts, of ids from {min(ids, default=0)} to "
                f"{max(ids, default=0)}: give a row for each, of ids from 3 to below its size, "
                f"{self.size}"
            )
        return rows

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        return self._tokenizer.decode(ids)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return self._tokenizer.pieces(ids)


def _own_class(kind: str) -> Any:
    own = resolve(kind, KIND)
    if not isinstance(own, type):
        raise UserError(f"{KIND} is {kind!r}, which is no class")
    return own
