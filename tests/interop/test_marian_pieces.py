"""Marian's text: pieces to our ids and back, and (marked) as MarianTokenizer cuts it."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from experiments.benchmarks.decode import REQUIREMENTS
from experiments.benchmarks.peers import environment
from tests.support.marian_model import TEXTS, write_pieces
from transformer.batch import EOS, PAD
from transformer.errors import UserError
from transformer.interop import Pieces

PROGRAM = """
import json, sys
from transformers import MarianTokenizer
asked = json.load(sys.stdin)
tokenizer = MarianTokenizer.from_pretrained(asked["folder"])
ids = [tokenizer(text).input_ids for text in asked["texts"]]
said = [tokenizer.decode(row, skip_special_tokens=True, use_source_tokenizer=False)
        for row in asked["ids"]]
json.dump({"ids": ids, "texts": said}, sys.stdout)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pieces(tmp_path)
    return tmp_path


def mapped(folder: Path) -> tuple[dict[str, int], np.ndarray]:
    """The vocabulary, and our ids, as an import has them."""
    theirs = json.loads((folder / "vocab.json").read_text())
    ours_of = np.arange(EOS, EOS + len(theirs), dtype=np.int32)
    ours_of[-1] = PAD
    return theirs, ours_of


def test_text_there_and_back(folder: Path) -> None:
    theirs, ours_of = mapped(folder)
    tokenizer = Pieces(folder, ours_of)
    target = sentencepiece.SentencePieceProcessor(model_file=str(folder / "target.spm"))
    for text in TEXTS["target"]:
        pieces = target.encode(text, out_type=str)
        ids = [int(ours_of[theirs[piece]]) for piece in pieces]
        unknown = int(ours_of[theirs["<unk>"]])
        assert tokenizer.decode([[*ids, unknown, EOS, PAD], []]) == [text, ""]
    (ids,) = tokenizer.encode(["la casa"])
    source = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    assert ids == [ours_of[theirs[piece]] for piece in source.encode("la casa", out_type=str)]


def test_languages_and_what_has_no_piece(folder: Path) -> None:
    theirs, ours_of = mapped(folder)
    ((code, *rest), plain, unknown) = Pieces(folder, ours_of).encode([">>deu<< el", "el", "j"])
    assert code == ours_of[theirs[">>deu<<"]] and rest == plain
    assert ours_of[theirs["<unk>"]] in unknown


def test_files_that_do_not_go_together(folder: Path) -> None:
    _, ours_of = mapped(folder)
    with pytest.raises(UserError, match=r"vocab.json: '<pad>' has the id \d+, and the model \d+ r"):
        Pieces(folder, ours_of[:-1])
    for text in ('{"a":' * 100 + "1" + "}" * 100, "[" * 100_000 + "]" * 100_000):
        (folder / "vocab.json").write_text(text)
        with pytest.raises(UserError, match=r"vocab.json is nested too deeply; fetch it again"):
            Pieces(folder, ours_of)
    (folder / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match=r"vocab.json has no <unk>; fetch it again"):
        Pieces(folder, ours_of)
    (folder / "target.spm").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"target.spm is no SentencePiece model"):
        Pieces(folder, ours_of)
    (folder / "source.spm").unlink()
    with pytest.raises(UserError, match=r"source.spm: No such file .*; Marian's tokenizer has one"):
        Pieces(folder, ours_of)


@pytest.mark.peers
def test_marians_tokenizer_cuts_alike(folder: Path) -> None:
    theirs, ours_of = mapped(folder)
    texts = [*TEXTS["source"], ">>deu<< la casa roja", "  el  gato j ", "¿Qué?"]
    target = sentencepiece.SentencePieceProcessor(model_file=str(folder / "target.spm"))
    ids = [[theirs[p] for p in target.encode(text, out_type=str)] for text in TEXTS["target"]]
    ids.append([*ids[0], theirs["<unk>"], theirs["</s>"], theirs["<pad>"]])
    answer = subprocess.run(
        [environment(*REQUIREMENTS), "-W", "ignore", "-c", PROGRAM],
        input=json.dumps({"folder": str(folder), "texts": texts, "ids": ids}),
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    said, tokenizer = json.loads(answer.stdout), Pieces(folder, ours_of)
    encoded = [[*row, EOS] for row in tokenizer.encode(texts)]
    assert encoded == [ours_of[row].tolist() for row in said["ids"]]
    assert tokenizer.decode([ours_of[row].tolist() for row in ids]) == said["texts"]
