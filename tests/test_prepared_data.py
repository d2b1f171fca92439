"""A run's corpus, tokenizer and tokens: shared where they are the same, and of one's own."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece

from tests.support.tiny import get_config
from transformer.config import from_dict
from transformer.data import tokenizers
from transformer.errors import UserError
from transformer.experiment import Experiment

MODULE = """
import hashlib
from transformer.data import Pair

class Letters:
    def __init__(self, model):
        self.letters = model.decode()
        self.size = 4 + len(self.letters)
        self.fingerprint = hashlib.sha256(model).hexdigest()
        self.composes = True

    @staticmethod
    def train(pairs, extra=""):
        return "".join(sorted({*extra, *(c for p in pairs for c in p.source + p.target)})).encode()

    def encode(self, texts):
        return [[4 + self.letters.index(c) for c in text] for text in texts]

    def decode(self, ids):
        return ["".join(self.letters[i - 4] for i in row if i > 3) for row in ids]

    def pieces(self, ids):
        return [self.letters[i - 4] for i in ids]

class Counting:
    def __init__(self, size):
        self.size = size

    def has(self, split):
        return True

    def pairs(self, split):
        for number in range(self.size):
            yield Pair("a " * (1 + number % 7), str(1000 * len(split) + number))

    def fingerprint(self, split):
        return f"counting {split} {self.size}"

    def origins(self, split):
        return {"counting": split}

class Listed(Counting):
    def pairs(self, split):
        return [*super().pairs(split)]

class Tuples(Counting):
    def pairs(self, split):
        return ((pair.source, pair.target) for pair in super().pairs(split))

class Surrogates(Counting):
    def pairs(self, split):
        return (Pair(pair.source + "\\ud800", pair.target) for pair in super().pairs(split))

class Nameless(Counting):
    def fingerprint(self, split):
        return None

class TooLarge(Letters):
    def encode(self, texts):
        return [[self.size] for text in texts]

class Caching(Letters):
    def encode(self, texts):
        self.row = getattr(self, "row", [5, 6])
        return [self.row for text in texts]

class Half:
    pass
"""


def experiment(folder: Path, run: str, tokenizer: dict[str, Any], **data: Any) -> Experiment:
    tree = get_config().to_dict()
    tree["data"] |= {"cache_dir": str(folder / "cache"), **data}
    tree["data"]["tokenizer"] |= tokenizer
    (folder / run).mkdir()
    return Experiment(from_dict(tree), folder / run)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_data.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_data", raising=False)


def test_a_tokenizer_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other options, or a damaged file, are another."""
    trained, train = [], tokenizers.train

    def counted(pairs: Any, path: Path, **options: Any) -> None:
        trained.append(path)
        train(pairs, path, **options)

    monkeypatch.setattr(tokenizers, "train", counted)
    first, again = experiment(tmp_path, "1", {}), experiment(tmp_path, "2", {})
    assert first.tokenizer.fingerprint == again.tokenizer.fingerprint
    assert trained == [tmp_path / "1" / "tokenizer.model"]
    smaller = experiment(tmp_path, "3", {"vocab_size": 350})
    assert smaller.tokenizer.size <= 350 and len(trained) == 2
    for kept in (tmp_path / "cache" / "tokenizers").iterdir():
        kept.write_bytes(kept.read_bytes()[:-1])
    mended = experiment(tmp_path, "4", {})
    assert mended.tokenizer.fingerprint == first.tokenizer.fingerprint and len(trained) == 3


def test_text_that_changes_while_it_is_read_is_not_noted(tmp_path: Path) -> None:
    """The next start takes the text as it is then."""
    tree = get_config().to_dict()
    names = [f"{split}_{side}" for split in ("train", "dev") for side in ("source", "target")]
    for name in names:
        (tmp_path / name).write_text("uno dos\n" * 20 + f"{name}\n", encoding="utf-8")
    tree["data"] |= {"cache_dir": str(tmp_path / "cache"), "source": "text"}
    tree["data"]["text"] |= {name: str(tmp_path / name) for name in names}
    (tmp_path / "run").mkdir()
    for split in ("train", "dev"):
        run = Experiment(from_dict(tree), tmp_path / "run")
        assert run.tokenizer if split == "dev" else True
        run.data._fingerprint(split)
        (tmp_path / f"{split}_source").write_text("tres\n" * 21, encoding="utf-8")
        with pytest.raises(UserError, match="changed while it was read"):
            run.store(split)
        assert len(Experiment(from_dict(tree), tmp_path / "run").store(split)) == 21
        (tmp_path / f"{split}_source").write_text("again\n" * 21, encoding="utf-8")
        with pytest.raises(UserError, match=f"the {split} set is not the one"):
            Experiment(from_dict(tree), tmp_path / "run").store(split)
        (tmp_path / f"{split}_source").write_text("tres\n" * 21, encoding="utf-8")


def test_a_source_and_a_tokenizer_of_ones_own(tmp_path: Path, own: None) -> None:
    source = {"source": "own_data:Counting", "source_options": {"size": 30}}
    letters = {"kind": "own_data:Letters", "options": {"extra": "z"}}
    run = experiment(tmp_path, "run", letters, **source)
    assert run.tokenizer.decode(run.tokenizer.encode(["1 a"])) == ["1 a"]
    assert run.tokenizer.size == 4 + len(" 0123456789az")
    assert len(run.store("train")) == 30
    batch = run.train_batches[0]
    assert batch.source.ids.max() < run.tokenizer.size
    again = Experiment(run.config, run.workdir)
    assert again.tokenizer.fingerprint == run.tokenizer.fingerprint


def test_a_source_of_ones_own_may_give_a_list(tmp_path: Path, own: None) -> None:
    """Which is read once, as any iterable is."""
    source = {"source": "own_data:Listed", "source_options": {"size": 30}}
    run = experiment(tmp_path, "run", {"kind": "own_data:Letters"}, **source)
    assert len(run.store("train")) == 30


def test_ids_of_ones_own_are_copied_and_looked_at(tmp_path: Path, own: None) -> None:
    source = {"source": "own_data:Counting", "source_options": {"size": 30}}
    run = experiment(tmp_path, "run", {"kind": "own_data:Caching"}, **source)
    assert [run.store("train").source(i).tolist() for i in range(2)] == [[5, 6, 2]] * 2
    large = experiment(tmp_path, "large", {"kind": "own_data:TooLarge"}, **source)
    with pytest.raises(UserError, match="of ids from 3 to below its size"):
        large.store("train")


@pytest.mark.parametrize(
    ("data", "tokenizer", "message"),
    [
        ({"source": "own_data:Half"}, {}, "lacks has, pairs, fingerprint or origins"),
        ({"source": "own_data:Counting"}, {}, "source_options lacks size, which own_data:Count"),
        (
            {"source": "own_data:Tuples", "source_options": {"size": 3}},
            {},
            "pair 0 .* no data.Pair",
        ),
        ({"source": "own_data:Surrogates", "source_options": {"size": 3}}, {}, "half a surrogate"),
        ({"source": "own_data:Nameless", "source_options": {"size": 3}}, {}, "fingerprint.* None"),
        ({"source": "own_data:No"}, {}, "data.source is 'own_data:No': own_data has no 'No'"),
        ({"source": "cassa"}, {}, "data.source is 'cassa'; choose one of"),
        ({"source": ".x:y"}, {}, "data.source is '.x:y'; choose one of"),
        ({"source": "a..b:y"}, {}, "data.source is 'a..b:y'; choose one of"),
        ({"source_options": {"a": 1}}, {}, "data.source_options is set but data.source is"),
        ({}, {"kind": "own_data:Half"}, "data.tokenizer.kind is 'own_data:Half', which has no tra"),
        ({}, {"kind": "wordpiece"}, "data.tokenizer.kind is 'wordpiece'; choose one of bpe"),
        ({}, {"kind": "own_data:Letters", "sampling": 0.1}, "only SentencePiece's pieces"),
        ({}, {"kind": "own_data:Letters", "path": "x"}, "give one of them"),
        ({}, {"options": {"a": 1}}, "data.tokenizer.options is set but"),
        ({}, {"path": "none.model"}, "data.tokenizer.path=none.model: No such file"),
    ],
)
def test_what_cannot_be_ones_own_is_a_line(
    tmp_path: Path, own: None, data: dict[str, Any], tokenizer: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        assert experiment(tmp_path, "run", tokenizer, **data).tokenizer


def sentencepiece_model(path: Path, **options: Any) -> None:
    """Writes a model as its trainer makes it: <unk> is 0, and there is no <pad>."""
    model = io.BytesIO()
    sentences = [f"la casa roja número {n} está aquí" for n in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        hard_vocab_limit=False,
        user_defined_symbols=["<2en>"],
        minloglevel=2,
        **options,
    )
    path.write_bytes(model.getvalue())


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "bpe"},
        {"model_type": "unigram", "byte_fallback": True, "vocab_size": 320},
        {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    ],
    ids=["bpe", "bytes", "t5"],
)
def test_a_tokenizer_that_exists_cuts_as_before(tmp_path: Path, options: dict[str, Any]) -> None:
    sentencepiece_model(tmp_path / "theirs.model", **{"vocab_size": 60, **options})
    theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / "theirs.model"))
    run = experiment(tmp_path, "run", {"path": str(tmp_path / "theirs.model")})
    texts = ["<2en> la casa roja", "está aquí <2en>", "número 7"]
    ids = run.tokenizer.encode(texts)
    assert [run.tokenizer.pieces(row) for row in ids] == theirs.encode(texts, out_type=str)
    assert run.tokenizer.decode(ids) == theirs.decode(theirs.encode(texts))
    assert all("<2en>" in run.tokenizer.pieces(row) for row in ids[:2])
    assert run.tokenizer.pieces([0, 1, 2, 3]) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert min(min(row) for row in ids) > 3
    whole = run.tokenizer.sample(texts, 1e-9, np.arange(3))
    assert [run.tokenizer.pieces(row).count("<2en>") for row in whole] == [1, 1, 0]
    again = Experiment(run.config, run.workdir)
    (tmp_path / "theirs.model").unlink()
    assert again.tokenizer.encode(texts) == ids, "the run has its own copy"


def test_another_file_than_the_run_began_with_is_refused(tmp_path: Path) -> None:
    sentencepiece_model(tmp_path / "m", model_type="bpe", vocab_size=60)
    run = experiment(tmp_path, "run", {"path": str(tmp_path / "m")})
    assert run.tokenizer.size == 61
    sentencepiece_model(tmp_path / "m", model_type="unigram", vocab_size=50)
    with pytest.raises(UserError, match=r"is another tokenizer than .*/tokenizer\.model"):
        assert Experiment(run.config, run.workdir).tokenizer


def test_a_users_pad_is_no_padding(tmp_path: Path) -> None:
    """A model whose maker defined `<pad>` as a piece of text: in ours it is padding."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the red house"] * 9),
        model_writer=model,
        vocab_size=30,
        hard_vocab_limit=False,
        pad_id=-1,
        unk_id=3,
        user_defined_symbols=["<pad>"],
        minloglevel=2,
    )
    (tmp_path / "m").write_bytes(model.getvalue())
    run = experiment(tmp_path, "run", {"path": str(tmp_path / "m")})
    assert 0 not in run.tokenizer.encode(["the <pad> red"])[0]


def test_a_tokenizer_larger_than_the_model_is_named(tmp_path: Path) -> None:
    sentencepiece_model(tmp_path / "m", model_type="bpe", byte_fallback=True, vocab_size=330)
    run = experiment(tmp_path, "run", {"path": str(tmp_path / "m"), "vocab_size": 270})
    with pytest.raises(UserError, match=r"has \d+ pieces, more than .* = 270: set --config.data"):
        assert run.tokenizer
