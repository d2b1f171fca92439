"""Tokenizers that are not trained here: a SentencePiece model that exists, a class of one's own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformer.batch import BOS, EOS, PAD
from transformer.data.pairs import Pair
from transformer.data.tokenizers import UNK, SentencePieceTokenizer, Tokenizer, model_proto
from transformer.dotted import construct, is_dotted, resolve
from transformer.errors import UserError

KIND, PATH = "data.tokenizer.kind", "data.tokenizer.path"


def adopted(path: Path) -> bytes:
    """A SentencePiece model with our special ids: pieces reordered, and none cut otherwise.

    Most models have <unk> as 0 and no <pad>; here PAD, BOS, EOS and UNK are 0 to 3, and those that
    a model lacks are added. Symbols that its maker defined stay whole pieces.

    Raises:
        UserError: there is no file, or it is no SentencePiece model.
    """
    model = SentencePieceTokenizer.load(path, PATH).model
    proto: Any = model_proto(model)
    spec, piece_type = proto.trainer_spec, type(proto).SentencePiece
    names = {
        PAD: spec.pad_piece or "<pad>",
        BOS: spec.bos_piece or "<s>",
        EOS: spec.eos_piece or "</s>",
        UNK: spec.unk_piece or "<unk>",
    }
    if [piece.piece for piece in proto.pieces[: len(names)]] == [names[i] for i in range(4)]:
        return model
    known = {piece.piece: piece for piece in proto.pieces}
    specials = []
    for index in range(len(names)):
        name = names[index]
        special = known.pop(name, None) or piece_type(piece=name, score=0.0)
        special.type = piece_type.UNKNOWN if index == UNK else piece_type.CONTROL
        specials.append(special)
    others = list(known.values())
    del proto.pieces[:]
    proto.pieces.extend([*specials, *others])
    spec.pad_id, spec.bos_id, spec.eos_id, spec.unk_id = PAD, BOS, EOS, UNK
    spec.pad_piece, spec.bos_piece = names[PAD], names[BOS]
    spec.eos_piece, spec.unk_piece = names[EOS], names[UNK]
    spec.vocab_size = len(proto.pieces)
    return proto.SerializeToString(deterministic=True)


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


def load_tokenizer(kind: str, path: Path) -> Tokenizer:
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
    tokenizer = _own_class(kind)(content)
    if not isinstance(tokenizer, Tokenizer):
        needed = "size, fingerprint, composes, encode, decode or pieces"
        raise UserError(f"{KIND} is {kind!r}, which lacks {needed}")
    return tokenizer


def _own_class(kind: str) -> Any:
    own = resolve(kind, KIND)
    if not isinstance(own, type):
        raise UserError(f"{KIND} is {kind!r}, which is no class")
    return own
