"""Masking: what is chosen, what stands for it, what counts, and that nothing else decides it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments import masked_language_model
from transformer.batch import EOS, Batch
from transformer.config import from_dict
from transformer.data import (
    Batches,
    Blanks,
    CasaRoja,
    Masking,
    OneSide,
    Pair,
    Portion,
    Same,
    SentencePieceTokenizer,
    everything,
    in_order,
    open_store,
    plan_buckets,
    plan_packed,
    tokenizers,
)
from transformer.data.tokenizers import MASK
from transformer.errors import UserError
from transformer.experiment import Experiment

CORPUS = OneSide(CasaRoja(600, 20, 20), "source")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "model"
    options = {"kind": "bpe", "vocab_size": 400, "character_coverage": 1.0, "lowercase": False}
    options["split_scripts"] = True
    tokenizers.train(CORPUS.pairs("train"), path, train_sentences=1_000, **options)
    return SentencePieceTokenizer.load(path)


@pytest.fixture(scope="module")
def batches(tokenizer: SentencePieceTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Batches:
    """Packed rows without masking: sources and targets that are the same."""
    folder = tmp_path_factory.mktemp("store")
    store = open_store(folder, lambda: CORPUS.pairs("train"), tokenizer, key="k")
    plan = plan_packed(
        store.lengths,
        [Portion(np.arange(len(store)), 1.0)],
        tokens_per_batch=2_048,
        packed_length=64,
        row_multiple=8,
    )
    return Batches(Same(store, plan), 3)


def masked(
    batches: Batches, tokenizer: SentencePieceTokenizer, share: float = 0.15, seed: int = 3
) -> Batches:
    return dataclasses.replace(batches, masking=Masking(share, seed, tokenizer.size))


def equal(a: Batch, b: Batch) -> bool:
    pairs = zip(*(vars(side).items() for side in (a.source, b.source)), strict=True)
    same = all(np.array_equal(x, y) for (_, x), (_, y) in pairs)
    return same and np.array_equal(a.target.weights, b.target.weights)


def test_what_counts_is_what_was_chosen_and_its_text_is_asked_for(
    batches: Batches, tokenizer: SentencePieceTokenizer
) -> None:
    plain, hidden = batches[0], masked(batches, tokenizer)[0]
    changed = np.asarray(hidden.source.ids != plain.source.ids)
    weights = np.asarray(hidden.target.weights)
    assert set(np.unique(weights)) == {0.0, 1.0}
    assert weights[plain.target.segments > 0].mean() < 0.3
    # Sides are one text, so source positions are target positions.
    assert np.array_equal(plain.source.segments, plain.target.segments)
    assert not (changed & (weights == 0)).any() and not weights[plain.target.segments == 0].any()
    assert np.array_equal(hidden.target.labels, plain.source.ids)
    assert np.array_equal(hidden.source.segments, plain.source.segments)
    for row in range(len(weights)):
        segments = np.asarray(plain.target.segments[row])
        for segment in range(1, segments.max() + 1):
            assert weights[row][segments == segment].any()  # one of each sentence at least


def test_shares_are_those_of_the_paper(batches: Batches, tokenizer: SentencePieceTokenizer) -> None:
    """Of long text, where "one at least" does not matter."""
    hide, size = Masking(0.15, 0, tokenizer.size), 40_000
    tokens = np.full(size, 300)
    tokens[-1] = EOS
    chosen, shown = hide._draw(tokens, [7], 5)
    assert abs(chosen.mean() - 0.15) < 0.01
    of_chosen = shown[chosen]
    assert abs((of_chosen == MASK).mean() - 0.8) < 0.02
    assert abs((of_chosen == 300).mean() - 0.1) < 0.02
    others = of_chosen[(of_chosen != MASK) & (of_chosen != 300)]
    assert abs(len(others) / len(of_chosen) - 0.1) < 0.02
    assert others.min() >= 260 and others.max() < tokenizer.size and len(np.unique(others)) > 90
    assert (shown[~chosen] == tokens[~chosen]).all()


def test_a_mask_is_a_function_of_seed_step_and_example(
    batches: Batches, tokenizer: SentencePieceTokenizer
) -> None:
    hidden = masked(batches, tokenizer)
    assert equal(hidden[2], hidden[2])
    # However hosts share the rows.
    rows = hidden.shape(2).rows
    parts = [hidden.rows(2, start, start + 4) for start in range(0, rows, 4)]
    joined = [np.concatenate([np.asarray(p.source.ids) for p in parts]),
              np.concatenate([np.asarray(p.target.weights) for p in parts])]  # fmt: skip
    assert np.array_equal(joined[0], hidden[2].source.ids)
    assert np.array_equal(joined[1], hidden[2].target.weights)
    # Another seed, another step: the same text, otherwise masked.
    other = masked(batches, tokenizer, seed=4)[2]
    assert np.array_equal(other.target.labels, hidden[2].target.labels)
    assert not equal(other, hidden[2])
    per_epoch = batches.plan.batches_per_epoch
    weights = {}
    for step in range(2 * per_epoch):
        for example, segment in first_of_rows(hidden, step):
            weights.setdefault(example, []).append(segment)
    assert any(not np.array_equal(*each) for each in weights.values() if len(each) == 2)
    # A batch that is passed over takes its mask with it.
    after = hidden.without([0])
    assert equal(after[1], hidden[2])


def first_of_rows(batches: Batches, step: int) -> list[tuple[int, np.ndarray]]:
    """The first sentence of each row: its example, and the weights of its tokens."""
    rows, batch = batches.layout(step), batches[step]
    first = zip(rows.splits[:-1], rows.splits[1:], strict=True)
    return [
        (int(rows.examples[a]), np.asarray(batch.target.weights[r])[batch.target.segments[r] == 1])
        for r, (a, b) in enumerate(first)
        if b > a
    ]


def test_evaluation_is_masked_in_one_way(
    batches: Batches, tokenizer: SentencePieceTokenizer
) -> None:
    """Whatever shapes its batches have."""
    found = []
    for rows in (8, 16):
        plan = plan_buckets(
            batches.store.lengths,
            everything(batches.store.lengths),
            tokens_per_batch=1_024,
            shapes=2,
            row_multiple=rows,
            length_multiple=8,
        )
        ordered = in_order(batches.store, plan, Masking(0.15, 3, tokenizer.size))
        steps = range(plan.batches_per_epoch)
        found.append(dict(pair for step in steps for pair in first_of_rows(ordered, step)))
    assert found[0].keys() == found[1].keys() == set(range(600))
    assert all(np.array_equal(found[0][i], found[1][i]) for i in range(600))


def test_one_side_is_its_own_target() -> None:
    whole = CasaRoja(600, 20, 20)
    target = OneSide(whole, "target")
    spanish, english, *_ = next(whole.pairs("dev"))
    assert next(CORPUS.pairs("dev")) == Pair(spanish, spanish)
    assert next(target.pairs("dev")) == Pair(english, english)
    prints = {corpus.fingerprint("dev") for corpus in (whole, CORPUS, target)}
    assert len(prints) == 3 and CORPUS.origins("dev") == whole.origins("dev")


def test_blanks_are_masks(tokenizer: SentencePieceTokenizer) -> None:
    blanks = Blanks(tokenizer)
    la, roja = tokenizer.encode(["la", "roja"])
    texts = ["la <mask> roja", "<mask>", "la roja", "", "la <mask><mask>"]
    expected = [[*la, MASK, *roja], [MASK], [*la, *roja], [], [*la, MASK, MASK]]
    assert blanks.encode(texts) == expected
    assert blanks.decode([la]) == ["la"]
    # No text is ever encoded so.
    every = [chr(code) for code in range(1, 0x3000)] + ["<unk>", " ⁇ "]
    assert not any(MASK in ids for ids in tokenizer.encode(every))


def test_an_experiment_masks_training_and_evaluation(tmp_path: Path) -> None:
    config = from_dict(masked_language_model.get_config("smoke").to_dict())
    parts = Experiment(config, tmp_path)
    for made in (parts.train_batches, parts.eval_batches(parts.store("dev"))):
        batch = made[0]
        assert (np.asarray(batch.source.ids) == MASK).any()
        used = np.asarray(batch.target.segments) > 0
        assert 0.1 < np.asarray(batch.target.weights)[used].mean() < 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": "both"}, r"data.masked is 0.15; .* set data.side to source or target"),
        ({"side": "left"}, r"data.side is 'left'; choose one of both, source, target"),
        ({"masked": 1.0}, r"data.masked is 1.0; it must be at least 0 and below 1"),
        ({"tokenizer": {"sampling": 0.1}}, r"data.masked and data.tokenizer.sampling"),
    ],
)
def test_bad_values_are_refused_with_a_reason(changes: dict, message: str) -> None:
    tree = masked_language_model.get_config("smoke").to_dict()
    for key, value in changes.items():
        old = tree["data"][key]
        tree["data"][key] = {**old, **value} if isinstance(value, dict) else value
    with pytest.raises(UserError, match=message) as caught:
        from_dict(tree)
    assert "\n" not in str(caught.value)
