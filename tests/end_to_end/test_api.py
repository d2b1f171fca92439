"""The Python API as a notebook uses it: `import transformer` and nothing else."""

from pathlib import Path

import jax
import numpy as np
import pytest

import transformer
from tests.support import old_run
from tests.support.processes import ROOT
from transformer import (
    Batch,
    Config,
    Mask,
    ModelConfig,
    UserError,
    attend,
    build_model,
    inspection,
    testing,
)
from transformer.batch import EOS, Source, Target

PAIRS = [("la casa roja", "the red house"), ("un perro", "a dog")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> transformer.Run:
    workdir = old_run.unpack(tmp_path_factory.mktemp("old"))
    return transformer.open_run(str(workdir), "last", beam=1)


def test_a_run_has_its_parts(run: transformer.Run) -> None:
    assert run.config.decoding.beam == 1 and run.config.model.d_model == 16
    assert run.checkpoint == "the checkpoint at step 40"
    assert run.tokenizer.decode(run.tokenizer.encode(["la casa"])) == ["la casa"]
    assert set(run.params) == {"embedding", "encoder", "decoder"}
    assert run.model.config.vocab_size == 320


def test_a_run_scores_pairs_as_its_model_does(run: transformer.Run) -> None:
    scores = run.score(PAIRS)
    sources, targets = (
        [[*ids, EOS] for ids in run.tokenizer.encode([pair[side] for pair in PAIRS])]
        for side in (0, 1)
    )
    batch = Batch.of(sources, targets)
    with testing.layout():
        logits_BTV = jax.jit(run.model.apply)({"params": jax.device_get(run.params)}, batch)
    log_probs_BTV = np.asarray(jax.nn.log_softmax(logits_BTV))
    for b, target in enumerate(targets):
        expected = [log_probs_BTV[b, t, token] for t, token in enumerate(target)]
        assert scores[b].tokens == tuple(target)
        np.testing.assert_allclose(scores[b].token_log_probs, expected, rtol=1e-4)
        assert scores[b].log_prob == pytest.approx(sum(expected), rel=1e-4)
    with pytest.raises(UserError, match=r"pair 1 has .* tokens on a side"):
        run.score([("la " * 90, "the")])


def test_a_run_is_evaluated_on_files(run: transformer.Run, tmp_path: Path) -> None:
    """The text of a split, read from files, has the scores of the split."""
    of_split = run.evaluate("dev")
    for name, lines in (("s", of_split.sources), ("r", of_split.references)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    of_files = run.evaluate(source=tmp_path / "s", reference=str(tmp_path / "r"))
    assert of_files.split == "file.r" and of_files.bleu == of_split.bleu
    assert of_files.likelihood == of_split.likelihood
    assert of_files.translations == of_split.translations and of_files.baseline is None
    (tmp_path / "long").write_text("la " * 9_000 + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1 has 18,001 tokens on a side, more than 8 times"):
        run.evaluate(source=tmp_path / "long", reference=tmp_path / "long")
    with pytest.raises(UserError, match="takes both of them"):
        run.evaluate(source=tmp_path / "s")
    with pytest.raises(UserError, match="none: No such file"):
        run.evaluate(source=tmp_path / "s", reference=tmp_path / "none")


def test_a_run_translates_and_is_looked_into(run: transformer.Run, tmp_path: Path) -> None:
    ((best,),) = run.translate(["la casa roja"])
    assert best.log_prob < 0.0 and isinstance(best.text, str)
    view = run.attention("la casa roja", "the red house")
    view.save_png(str(tmp_path / "attention.png"))
    assert (tmp_path / "attention.png").stat().st_size > 1_000
    S, T = len(view.source_pieces), len(view.target_pieces)
    weights_NBHTS = view.maps.cross_NBHTS
    assert weights_NBHTS is not None and weights_NBHTS.shape == (1, 1, 2, T, S)
    np.testing.assert_allclose(weights_NBHTS.sum(-1), 1.0, rtol=1e-5)
    unpadded = cross_attention(run, "la casa roja", "the red house")
    np.testing.assert_allclose(weights_NBHTS, unpadded, rtol=1e-4, atol=1e-6)


def cross_attention(run: transformer.Run, source: str, target: str) -> np.ndarray:
    """The weights of one pair without any padding."""
    ids = [[[*run.tokenizer.encode([text])[0], EOS]] for text in (source, target)]
    batch = Batch.of(*ids)
    with testing.layout():
        params = jax.device_get(run.params)
        maps = inspection.attention_maps(run.model, params, batch.source, batch.target)
    return np.asarray(maps.cross_NBHTS)


def test_five_sentences_one_after_another_compile_one_program(run: transformer.Run) -> None:
    compiled = 0

    def count(event: str, *_: object, **__: object) -> None:
        nonlocal compiled
        compiled += event == "/jax/core/compile/backend_compile_duration"

    texts = ["la", "la casa", "la casa roja", "el perro negro", "la casa roja del perro"]

    def look(text: str) -> None:
        run.translate([text])
        run.score([(text, text)])
        run.attention(text, text)

    look(texts[0])
    jax.monitoring.register_event_duration_secs_listener(count)
    for text in texts[1:]:
        look(text)
    assert compiled == 0


def test_a_batch_of_lists_or_an_array_is_padded_and_shifted() -> None:
    lists = Batch.of([[5, 6, EOS], [7, EOS]], [[8, EOS], [9, 4, EOS]])
    np.testing.assert_array_equal(lists.source.ids, [[5, 6, 2], [7, 2, 0]])
    np.testing.assert_array_equal(lists.source.segments, [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(lists.source.positions, [[0, 1, 2], [0, 1, 0]])
    np.testing.assert_array_equal(lists.target.ids, [[1, 8, 0], [1, 9, 4]])
    np.testing.assert_array_equal(lists.target.labels, [[8, 2, 0], [9, 4, 2]])
    np.testing.assert_array_equal(lists.target.weights, [[1, 1, 0], [1, 1, 1]])
    arrays = Batch.of(lists.source.ids, lists.target.labels)
    on_device = jax.jit(Batch.of)(lists.source.ids, lists.target.labels)
    for other in (arrays, on_device):
        for leaf, expected in zip(jax.tree.leaves(other), jax.tree.leaves(lists), strict=True):
            np.testing.assert_array_equal(leaf, expected)
    assert Source.of([], (2, 3)).segments.sum() == Target.of([], (2, 3)).weights.sum() == 0


def test_a_model_from_few_keys() -> None:
    model = build_model(ModelConfig(d_model=16, d_ff=32, heads=2, d_k=8, d_v=8, vocab_size=50))
    batch = Batch.of([[5, 6, EOS]], [[7, EOS]])
    with testing.layout():
        shapes = jax.eval_shape(model.init_with_output, jax.random.key(0), batch)[0]
    assert shapes.shape == (1, 2, 50)


def test_a_configuration_from_a_file_and_changes_by_key() -> None:
    path = ROOT / "experiments/casa_roja.py"
    config = Config.load(path, {"model.d_model": 64, "optimizer.options": {"b1": 0.8}})
    assert config.model.d_model == 64 and config.optimizer.options == {"b1": 0.8}
    assert config.training.steps == Config.load(path).training.steps
    with pytest.raises(UserError, match="unknown key 'd_modell': did you mean 'd_model'"):
        Config.load(path, {"model.d_modell": 64})


def test_attention_by_hand() -> None:
    q = k = v = jax.numpy.ones((1, 3, 2, 4))
    np.testing.assert_allclose(attend(q, k, v), v)
    np.testing.assert_allclose(attend(q, k, v, mask=Mask.causal(3)), v)
