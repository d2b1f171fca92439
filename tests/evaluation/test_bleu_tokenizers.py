"""BLEU counts the words of the references' script; a run keeps what it was first scored with."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.tiny import get_config
from transformer import run_directory
from transformer.config import Config, from_dict
from transformer.errors import UserError
from transformer.evaluation import bleu_tokenizers, evaluate, perplexity
from transformer.evaluation.bleu_tokenizers import in_training, of_run, suited
from transformer.evaluation.scores import score
from transformer.experiment import Experiment
from transformer.training import dev_evaluation

CHINESE = ["我们在北京的大学里学习计算机科学。", "今天天气很好,我想去公园散步。"]
JAPANESE = ["私は東京の大学で計算機科学を勉強しています。", "今日は天気がいいです。"]
KOREAN = ["저는 서울에 있는 대학교에서 공부합니다.", "오늘은 날씨가 좋습니다."]
THAI = ["ฉันเรียนวิทยาศาสตร์คอมพิวเตอร์ที่มหาวิทยาลัย", "วันนี้อากาศดีมาก"]
REFERENCES = {
    "zh": [
        CHINESE,
        ["\U00020000\U00020001\U0002a6d7"],
        ["我用 Python 写了一个很好的翻译系统,大家都说非常方便好用。"],
        ["他喜欢《千と千尋》和很多其他的中国电影与电视节目,还有各种各样的书籍。" * 2],
    ],
    "char": [
        THAI,
        JAPANESE,
        ["カタカナ", "ｶﾀｶﾅ", "ひらがなだけ"],
        ["ຂ້ອຍຮຽນຢູ່ມະຫາວິທະຍາໄລ"],
        ["ខ្ញុំរៀននៅសាកលវិទ្យាល័យ"],
        ["ကျွန်တော်တက္ကသိုလ်မှာပညာသင်နေပါတယ်"],
        ["ང་རང་སློབ་གྲྭ་ཆེན་མོར་སློབ་སྦྱོང་བྱེད་ཀྱི་ཡོད།"],
    ],
    "13a": [
        KOREAN,
        ["The cat sat on the mat.", "猫 means cat."],
        ["Кошка сидит."],
        ["यह एक बिल्ली है।", "هذه قطة", "זה חתול", "Con mèo ngồi"],
        ["", "123 ... 45!"],
        [],
    ],
}


@pytest.fixture(autouse=True)
def no_dictionaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has installed."""
    monkeypatch.setattr(bleu_tokenizers, "is_installed", lambda name: "mecab" not in name)


def experiment(workdir: Path, **keys: Any) -> Experiment:
    tree = get_config()
    tree.update_from_flattened_dict(keys)
    return Experiment(from_dict(tree.to_dict()), workdir)


@pytest.mark.parametrize(
    ("tokenizer", "references"),
    [(name, texts) for name, sets in REFERENCES.items() for texts in sets],
)
def test_the_script_of_the_references_decides(tokenizer: str, references: list[str]) -> None:
    assert suited(references) == tokenizer


def test_dictionaries_are_used_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bleu_tokenizers, "is_installed", lambda name: True)
    assert (suited(JAPANESE), suited(KOREAN)) == ("ja-mecab", "ko-mecab")
    assert suited(CHINESE) == "zh" and suited(THAI) == "char"


@pytest.mark.parametrize("references", [CHINESE, JAPANESE, THAI], ids=["zh", "ja", "th"])
def test_a_wrong_character_does_not_cost_the_whole_sentence(references: list[str]) -> None:
    nearly = [text[:4] + "x" + text[5:] for text in references]
    assert 50 < score(nearly, references).bleu < 95
    assert score(nearly, references, "13a").bleu < 20
    assert score(references, references).bleu == pytest.approx(100)


def test_the_signature_says_which() -> None:
    assert "|tok:zh|" in score(CHINESE, CHINESE).bleu_signature
    assert "|tok:char|" in score(THAI, THAI).bleu_signature
    assert "|tok:intl|" in score(THAI, THAI, "intl").bleu_signature


@pytest.mark.parametrize("name", ["spm", "flores101", "flores200", "spBLEU-1K"])
def test_what_downloads_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"'{name}', which downloads a model.* choose one of auto"):
        experiment(tmp_path, **{"evaluation.bleu_tokenizer": name})
    with pytest.raises(UserError, match="'14a'; choose one of auto, 13a"):
        experiment(tmp_path, **{"evaluation.bleu_tokenizer": "14a"})


def test_a_dictionary_that_is_missing_is_named(tmp_path: Path) -> None:
    japanese = experiment(tmp_path, **{"evaluation.bleu_tokenizer": "ja-mecab"})
    with pytest.raises(UserError, match=r"needs the packages of MeCab and ipadic: pip .*\[ja\]"):
        of_run(japanese, lambda: [])
    assert not run_directory.chosen(tmp_path)


def test_a_run_keeps_what_it_was_first_scored_with(tmp_path: Path) -> None:
    run = experiment(tmp_path)
    assert in_training(run, lambda: CHINESE) == "zh"
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    assert of_run(run, lambda: THAI) == in_training(run, lambda: THAI) == "zh"
    same, other = (experiment(tmp_path, **{"evaluation.bleu_tokenizer": n}) for n in ("zh", "13a"))
    assert of_run(same, lambda: THAI) == in_training(same, lambda: THAI) == "zh"
    for ask in (of_run, in_training):
        with pytest.raises(UserError, match=r"is '13a', but the run in .* is scored with 'zh'"):
            ask(other, lambda: THAI)


def test_a_run_from_before_is_trained_by_what_it_was(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    run = experiment(tmp_path)
    assert of_run(run, lambda: CHINESE) == "zh"
    assert in_training(run, lambda: CHINESE) == "13a"
    assert of_run(run, lambda: CHINESE) == "zh"
    asked = experiment(tmp_path, **{"evaluation.bleu_tokenizer": "zh"})
    with pytest.raises(UserError, match="is scored with '13a'"):
        in_training(asked, lambda: CHINESE)


@pytest.mark.parametrize("content", ['{"bleu_tokenizer": 3}', "[]", "nothing"])
def test_a_damaged_record_is_a_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "choices.json").write_text(content)
    with pytest.raises(UserError, match=r"choices.json .*bring it back"):
        of_run(experiment(tmp_path), lambda: CHINESE)


def test_training_and_evaluation_are_scored_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "dev"):
        for side in ("source", "target"):
            (tmp_path / f"{split}.{side}").write_text("\n".join(CHINESE) + "\n", encoding="utf-8")
    files = {
        f"data.text.{split}_{side}": str(tmp_path / f"{split}.{side}")
        for split in ("train", "dev")
        for side in ("source", "target")
    }
    keys = {"data.source": "text", "data.cache_dir": str(tmp_path / "cache")}
    run = experiment(tmp_path / "run", **files, **keys, **{"training.eval_bleu": True})
    (tmp_path / "run").mkdir()
    nearly = [text[:4] + "x" + text[5:] for text in CHINESE]
    likelihood = perplexity.Likelihood(1.0, 1.0, 0.5, 10)
    translations = [[SimpleNamespace(text=text)] for text in nearly]
    for module in (dev_evaluation, importlib.import_module("transformer.evaluation.evaluate")):
        monkeypatch.setattr(module, "LikelihoodEvaluator", lambda *_: lambda params: likelihood)
        translator = SimpleNamespace(
            translate=lambda sources: translations, refuse_too_large=lambda lengths: None
        )
        monkeypatch.setattr(
            module, "open_translator", lambda *_, translator=translator, **__: translator
        )
    values, _ = dev_evaluation.DevEvaluator(run)(None)
    evaluation = evaluate(run, None, "dev")
    assert values["bleu"] == evaluation.scores.bleu > 50
    assert "|tok:zh|" in evaluation.as_dict()["bleu_signature"]


def test_a_run_without_the_key_opens(tmp_path: Path) -> None:
    config: Config = experiment(tmp_path).config
    old = config.as_dict()
    del old["evaluation"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert Experiment.open(tmp_path).config == config
    (tmp_path / "config.json").write_text(json.dumps({**old, "evaluation": 3}))
    with pytest.raises(UserError, match=r"config.evaluation is 3; it must be a section"):
        Experiment.open(tmp_path)
