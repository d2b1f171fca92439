"""Hugging Face's Marian models: what is read, what is refused, and (marked) that they are the same.

    tests/run -m peers tests/interop

asks transformers itself, which is installed once, into an environment of its own.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.marian_model import CONFIG, TABLES, UNTIED, D, H, P, V, state
from transformer.batch import BOS, EOS, PAD
from transformer.config import DecodingConfig
from transformer.decoding import InputShapes
from transformer.errors import UserError
from transformer.interop import marian
from transformer.interop.generation_keys import TABLE
from transformer.models import build_model
from transformer.models.parameters import abstract
from transformer.sharding import Layout


def sinusoids() -> np.ndarray:
    """Marian's positions, an entry at a time."""
    table = np.zeros((P, D), np.float32)
    for place in range(P):
        for i in range(D // 2):
            angle = place / 10_000 ** (2 * i / D)
            table[place, i], table[place, D // 2 + i] = np.sin(angle), np.cos(angle)
    return table


def shapes_of(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


@pytest.mark.parametrize("tied", TABLES)
def test_the_parameters_are_the_models(tied: str) -> None:
    imported = marian.convert({**CONFIG, **UNTIED[tied]}, state(tied))
    assert imported.config.tied == tied and imported.config.vocab_size == V + 1
    model = build_model(imported.config)
    assert shapes_of(imported.params) == shapes_of(abstract(model, Layout.single()))
    assert {leaf.dtype for leaf in jax.tree.leaves(imported.params)} == {np.dtype(np.float32)}


def test_each_number_is_where_it_belongs() -> None:
    weights = state()
    params: Any = marian.convert(CONFIG, weights).params
    last, K = "model.decoder.layers.1", D // H
    for ours, theirs in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
        attention = {name: leaf[1] for name, leaf in params["decoder"][ours].items()}
        for name in ("query", "key", "value"):
            matrix = weights[f"{last}.{theirs}.{name[0]}_proj.weight"]
            bias = weights[f"{last}.{theirs}.{name[0]}_proj.bias"]
            for h in range(H):
                for k in range(K):
                    np.testing.assert_array_equal(attention[name][:, h, k], matrix[h * K + k])
                    assert attention[f"{name}_bias"][h, k] == bias[h * K + k]
        out = weights[f"{last}.{theirs}.out_proj.weight"]
        for h in range(H):
            np.testing.assert_array_equal(attention["output"][h, 1], out[:, h * K + 1])
        np.testing.assert_array_equal(
            attention["output_bias"], weights[f"{last}.{theirs}.out_proj.bias"]
        )
    feed_forward, norms = params["decoder"]["feed_forward"], params["decoder"]
    np.testing.assert_array_equal(feed_forward["up"][1].T, weights[f"{last}.fc1.weight"])
    np.testing.assert_array_equal(feed_forward["down"][1].T, weights[f"{last}.fc2.weight"])
    np.testing.assert_array_equal(feed_forward["up_bias"][1], weights[f"{last}.fc1.bias"])
    np.testing.assert_array_equal(feed_forward["down_bias"][1], weights[f"{last}.fc2.bias"])
    for ours, theirs in (
        ("self_attention_residual", "self_attn"),
        ("cross_attention_residual", "encoder_attn"),
        ("feed_forward_residual", "final"),
    ):
        for own, other in (("scale", "weight"), ("bias", "bias")):
            np.testing.assert_array_equal(
                norms[ours]["norm"][own][1], weights[f"{last}.{theirs}_layer_norm.{other}"]
            )


def test_ids_there_and_back() -> None:
    weights, config = state(), {**CONFIG, "eos_token_id": 3, "forced_eos_token_id": 3}
    imported = marian.convert(config, weights)
    theirs_of, ours_of = imported.theirs_of, imported.ours_of
    assert theirs_of[[PAD, BOS, EOS]].tolist() == [V - 1, V - 1, 3]
    assert theirs_of[EOS + 1 :].tolist() == [0, 1, 2, *range(4, V - 1)]
    assert ours_of[[V - 1, 3, 0, 4]].tolist() == [PAD, EOS, EOS + 1, EOS + 4]
    np.testing.assert_array_equal(theirs_of[ours_of], np.arange(V))
    embedding = imported.params["embedding"]
    np.testing.assert_array_equal(embedding["table"][ours_of], weights["model.shared.weight"])
    np.testing.assert_array_equal(embedding["table"][BOS], weights["model.shared.weight"][V - 1])
    np.testing.assert_array_equal(
        embedding["output_bias"][ours_of], weights["final_logits_bias"][0]
    )
    assert embedding["output_bias"][BOS] == marian.NEVER
    assert imported.decoding == DecodingConfig(beam=2, length_penalty="power", alpha=0.5)
    assert imported.shapes == InputShapes(max_length=P, max_output_length=P)


@pytest.mark.parametrize("start", [0, 5], ids=["eos", "a word"])
def test_decoding_may_start_from_any_row(start: int) -> None:
    weights = state()
    imported = marian.convert({**CONFIG, "decoder_start_token_id": start}, weights)
    assert imported.theirs_of[[PAD, BOS]].tolist() == [V - 1, start]
    np.testing.assert_array_equal(imported.theirs_of[imported.ours_of], np.arange(V))
    table = imported.params["embedding"]["table"]
    np.testing.assert_array_equal(table[BOS], weights["model.shared.weight"][start])


def test_renormalised_logits_leave_the_padding_out() -> None:
    imported = marian.convert({**CONFIG, "renormalize_logits": True}, state())
    bias = imported.params["embedding"]["output_bias"]
    assert (bias == marian.NEVER).tolist() == [True, True, *[False] * (V - 1)]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_folder_is_read(tmp_path: Path, dtype: str) -> None:
    weights = {k: v.astype(jax.numpy.dtype(dtype)) for k, v in state().items()}
    config = {k: v for k, v in CONFIG.items() if k not in TABLE}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(
        json.dumps({**{k: v for k, v in CONFIG.items() if k in TABLE}, "min_length": None})
    )
    save_file(weights, tmp_path / "model.safetensors")
    found, expected = marian.load(tmp_path), marian.convert(CONFIG, weights)
    assert found.config == expected.config and found.decoding == expected.decoding
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def test_tables_that_are_anothers_may_come_too() -> None:
    weights = state()
    shared = weights["model.shared.weight"]
    more = {f"model.{s}.embed_positions.weight": sinusoids() for s in ("encoder", "decoder")}
    more |= {f"model.{s}.embed_tokens.weight": shared for s in ("encoder", "decoder")}
    expected = marian.convert(CONFIG, weights).params
    found = marian.convert(CONFIG, {**weights, **more, "lm_head.weight": shared}).params
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    # transformers 4 left out a shared table that it also had under another name
    alone = {**weights, "lm_head.weight": weights.pop("model.shared.weight")}
    del alone["model.shared.weight"]
    jax.tree.map(np.testing.assert_array_equal, marian.convert(CONFIG, alone).params, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bart"}, "model_type is 'bart'; only marian's weights"),
        ({"normalize_embedding": True}, "normalize_embedding is True; False is all"),
        ({"normalize_before": True}, "normalize_before is True; False is all"),
        ({"static_position_embeddings": False}, "static_position_embeddings is False; True is all"),
        ({"decoder_attention_heads": 2}, "decoder_attention_heads is 2; the encoder's is 3"),
        ({"decoder_ffn_dim": 7}, "decoder_ffn_dim is 7; the encoder's is 11"),
        ({"d_model": 8}, "d_model is 8; 3 heads do not divide it"),
        ({"d_model": 9}, "d_model is 9; its positions need an even width"),
        ({"d_model": None}, "d_model is None; it must be a whole number from 1 on"),
        ({"decoder_vocab_size": 5}, "decoder_vocab_size is 5; vocab_size is 37"),
        (
            {"activation_function": "tanh"},
            "activation_function is 'tanh'; choose one of relu, gelu",
        ),
        ({"pad_token_id": 37}, "pad_token_id is 37; the vocabulary has 37 rows"),
        ({"eos_token_id": 36}, "eos_token_id is 36; the padding is the same"),
        ({"eos_token_id": [0, 1]}, r"eos_token_id is \[0, 1\]; it must be a whole number"),
        ({"forced_eos_token_id": 1}, "forced_eos_token_id is 1; 0 is all"),
        ({"bad_words_ids": [[36], [4]]}, r"bad_words_ids is \[\[36\], \[4\]\]; \[\[36\]\] is all"),
        ({"length_penalty": "much"}, "length_penalty is 'much'; it must be a number"),
        ({"length_penalty": float("nan")}, "length_penalty is nan; it must be a number"),
        ({"length_penalty": 10**400}, "length_penalty is 1000.*; it must be a number"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder is False; True is all"),
        ({"tie_encoder_decoder": True}, "tie_encoder_decoder is True; False is all"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads is .*; {} is all"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*; None is all"),
    ],
)
def test_keys_that_we_cannot_do(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        marian.convert({**CONFIG, **changes}, state())


def test_a_key_that_is_missing() -> None:
    with pytest.raises(UserError, match=r"config.json has no d_model; fetch it again"):
        marian.convert({k: v for k, v in CONFIG.items() if k != "d_model"}, state())


FC1 = "model.encoder.layers.0.fc1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(FC1), f"the weights have no {FC1}, which config.json asks for"),
        (lambda w: w.pop("model.shared.weight"), "the weights have no model.shared.weight"),
        (lambda w: w.update({FC1: w[FC1].T}), rf"{FC1} has the shape \(6, 11\).* says \(11, 6\)"),
        (lambda w: w.update({"x.y": w[FC1]}), r"x\.y is no tensor of a MarianMTModel \(1 such\)"),
        (
            lambda w: w.update({"model.encoder.embed_positions.weight": sinusoids()[::-1]}),
            "model.encoder.embed_positions.weight is not made of Marian's sinusoids",
        ),
    ],
)
def test_tensors_that_do_not_fit(change: Callable[[dict], Any], message: str) -> None:
    weights = state()
    change(weights)
    with pytest.raises(UserError, match=message):
        marian.convert(CONFIG, weights)


def test_a_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"config.json: No such file .* save_pretrained wrote"):
        marian.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is no JSON"):
        marian.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"config.json holds list, not an object"):
        marian.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "d_model": 8}))
    with pytest.raises(UserError, match=r"model.safetensors: no such file; .* save_pretrained"):
        marian.load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(UserError, match=r"model.safetensors cannot be read \(.*\); fetch it again"):
        marian.load(tmp_path)
    save_file(state(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=rf"^{tmp_path}: config.json: d_model is 8; 3 heads"):
        marian.load(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(UserError, match=r"pip install 'transformer\[interop\]'"):
        marian.load(tmp_path)
