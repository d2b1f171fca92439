"""What a model's files ask of `generate`: served, without effect, or refused by name."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.decoding.test_models import Numbers
from tests.support.marian_model import CONFIG, SPECIAL, P, V, state
from transformer.batch import Source
from transformer.config import DecodingConfig
from transformer.decoding import Translator
from transformer.errors import UserError
from transformer.interop import marian
from transformer.interop.generation_keys import TABLE
from transformer.interop.marian_keys import Keys, decoding_of, longest_output
from transformer.models import build_model

PAD, BIAS = V - 1, "final_logits_bias"
MODEL = {key: value for key, value in CONFIG.items() if key not in TABLE}
ASKED = {key: value for key, value in CONFIG.items() if key in TABLE}  # of our searches, all served

# What GenerationConfig() of transformers 4.57 and 5.23 has, what their MarianConfig adds, and what
# PretrainedConfig of transformers 4.0 could ask of `generate`.
KNOWN = """
_commit_hash _from_model_config assistant_confidence_threshold assistant_early_exit
assistant_ensemble_weight assistant_lookbehind bad_words_ids begin_suppress_tokens bos_token_id
cache_config cache_implementation compile_config constraints continuous_batching_config
decoder_start_token_id disable_compile diversity_penalty do_sample dola_layers early_stopping
encoder_no_repeat_ngram_size encoder_repetition_penalty eos_token_id epsilon_cutoff eta_cutoff
exponential_decay_length_penalty force_bos_token_to_be_generated force_words_ids forced_bos_token_id
forced_decoder_ids forced_eos_token_id generation_kwargs guidance_scale is_assistant length_penalty
low_memory max_cache_len max_length max_matching_ngram_size max_new_tokens max_time min_length
min_new_tokens min_p no_repeat_ngram_size num_assistant_tokens num_assistant_tokens_schedule
num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states output_logits
output_scores pad_token_id penalty_alpha prefill_chunk_size prompt_lookup_num_tokens
remove_invalid_values renormalize_logits repetition_penalty return_dict_in_generate
return_legacy_cache sequence_bias speculation_type stop_strings suppress_tokens target_lookbehind
temperature token_healing top_h top_k top_p transformers_version typical_p use_cache use_mtp
watermarking_config
"""

REFUSED = {  # a value that would change what is said
    "min_length": 5,
    "min_new_tokens": 1,
    "exponential_decay_length_penalty": [5, 1.5],
    "max_time": 0.5,
    "stop_strings": ["."],
    "early_stopping": True,
    "do_sample": True,
    "num_beam_groups": 2,
    "diversity_penalty": 0.5,
    "penalty_alpha": 0.6,
    "dola_layers": "low",
    "constraints": [{}],
    "force_words_ids": [[4]],
    "num_return_sequences": 2,
    "guidance_scale": 1.5,
    "forced_bos_token_id": 4,
    "force_bos_token_to_be_generated": True,
    "forced_decoder_ids": [[1, 4]],
    "suppress_tokens": [4],
    "begin_suppress_tokens": [4],
    "sequence_bias": [[[4], 1.0]],
    "repetition_penalty": 1.2,
    "encoder_repetition_penalty": 1.2,
    "no_repeat_ngram_size": 3,
    "encoder_no_repeat_ngram_size": 3,
    "remove_invalid_values": True,
    "token_healing": True,
    "watermarking_config": {"bias": 2.5},
    "prompt_lookup_num_tokens": 10,
    "assistant_early_exit": 2,
    "use_mtp": True,
    "cache_implementation": "quantized",
    "generation_kwargs": {"min_length": 5},
}
SERVED = {  # one that our searches do, and how it shows: in the decoding, or elsewhere
    "max_length": (9, {"max_output_length": 8}),
    "max_new_tokens": (9, {"max_output_length": 9}),
    "num_beams": (5, {"beam": 5}),
    "length_penalty": (1.5, {"alpha": 1.5}),
    "renormalize_logits": (False, {}),
    "forced_eos_token_id": (0, {}),
    "bad_words_ids": ([[PAD]], {}),
    "pad_token_id": (PAD, {}),
    "eos_token_id": (0, {}),
    "decoder_start_token_id": (PAD, {}),
}
OPUS_CONFIG = {  # Helsinki-NLP/opus-mt-en-de's, its sizes and ids apart
    "_name_or_path": "opus-mt-en-de",
    "_num_labels": 3,
    "activation_dropout": 0.0,
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "architectures": ["MarianMTModel"],
    "attention_dropout": 0.0,
    "bad_words_ids": [[PAD]],
    "bos_token_id": 0,
    "classif_dropout": 0.0,
    "classifier_dropout": 0.0,
    "decoder_layerdrop": 0.0,
    "decoder_vocab_size": V,
    "dropout": 0.1,
    "encoder_layerdrop": 0.0,
    "forced_eos_token_id": 0,
    "id2label": {"0": "LABEL_0"},
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "label2id": {"LABEL_0": 0},
    "max_length": 512,
    "normalize_before": False,
    "normalize_embedding": False,
    "num_beams": 4,
    "num_hidden_layers": 6,
    "share_encoder_decoder_embeddings": True,
    "static_position_embeddings": True,
    "transformers_version": "4.22.0.dev0",
    "use_cache": True,
    **SPECIAL,
}
OPUS_GENERATION = {
    "bad_words_ids": [[PAD]],
    "bos_token_id": 0,
    "forced_eos_token_id": 0,
    "max_length": 512,
    "num_beams": 4,
    "renormalize_logits": True,
    "transformers_version": "4.29.1",
    **SPECIAL,
}


def test_every_key_that_transformers_knows_has_a_rule() -> None:
    assert {*KNOWN.split()} - {*TABLE} == set()


def test_every_rule_is_tried_below() -> None:
    kinds = {key: rule.neutral is not None for key, rule in TABLE.items()}
    assert {key for key, refuses in kinds.items() if refuses} == {*REFUSED}
    assert {*SERVED} <= {key for key, refuses in kinds.items() if not refuses}


def served(keys: Keys) -> tuple[DecodingConfig, int]:
    return decoding_of(keys), longest_output(keys)


def both_files(**changes: Any) -> Iterator[tuple[DecodingConfig, int]]:
    """The decoding where config.json asks for this, and where generation_config.json does."""
    yield served(Keys({**CONFIG, **changes}))
    yield served(Keys(MODEL, {**ASKED, **changes}))


@pytest.mark.parametrize("key", REFUSED)
def test_what_our_searches_have_no_part_for_is_refused(key: str) -> None:
    value = REFUSED[key]
    with pytest.raises(UserError) as config_only:
        Keys({**CONFIG, key: value})
    with pytest.raises(UserError) as generation_too:
        marian.convert(MODEL, {}, {**ASKED, key: value})
    rest = f"{key} is {value!r}; "
    assert str(config_only.value).startswith(f"config.json: {rest}")
    assert str(generation_too.value).startswith(f"generation_config.json: {rest}")
    assert "its absence is all that our searches do" in str(generation_too.value)


@pytest.mark.parametrize("key", REFUSED)
def test_neutral_values_change_nothing(key: str) -> None:
    for value in (None, *(TABLE[key].neutral or ())):
        for decoding in both_files(**{key: value}):
            assert decoding == served(Keys(CONFIG))


@pytest.mark.parametrize(
    "key", [key for key in TABLE if TABLE[key].neutral is None and key not in SERVED]
)
def test_keys_that_change_no_output_may_say_anything(key: str) -> None:
    for value in (None, 0.3, {"any": [1]}):
        for decoding in both_files(**{key: value}):
            assert decoding == served(Keys(CONFIG))


@pytest.mark.parametrize("key", SERVED)
def test_what_is_served_reaches_the_decoding(key: str) -> None:
    value, change = SERVED[key]
    for decoding in both_files(**{key: value}):
        plain, longest = served(Keys(CONFIG))
        limit = change.get("max_output_length", longest)
        kept = {key: value for key, value in change.items() if key != "max_output_length"}
        assert decoding == (dataclasses.replace(plain, **kept), limit)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
def test_early_stopping_means_nothing_to_one_beam(early_stopping: object) -> None:
    for decoding in both_files(num_beams=1, early_stopping=early_stopping):
        assert decoding[0].beam == 1


def test_the_smaller_of_the_limits_caps_the_output() -> None:
    limit = lambda **asked: next(both_files(**asked))[1]  # noqa: E731
    assert limit() == limit(max_length=512) == limit(max_new_tokens=512) == P
    assert limit(max_length=9, max_new_tokens=3) == 3  # as in `generate`, this counts alone
    assert limit(max_length=3, max_new_tokens=9) == 9
    for asked in ({"max_length": 1}, {"max_length": "9"}, {"max_new_tokens": 0}):
        with pytest.raises(UserError, match=r"must be a whole number from [12] on"):
            limit(**asked)


def test_a_search_has_room_for_no_more_than_a_model_was_told() -> None:
    imported = marian.convert({**CONFIG, "max_length": 7}, state())
    translator = Translator(
        build_model(imported.config),
        imported.params,
        Numbers(),
        dataclasses.replace(imported.decoding, extra_length=9, n_best=2, tokens_per_batch=8),
        shapes=dataclasses.replace(imported.shapes, row_multiple=1, length_multiple=4),
    )
    ids = np.ones((1, 4), np.int32)
    tokens = lambda *arguments: translator._search(*arguments).tokens  # noqa: E731
    found = jax.eval_shape(tokens, imported.params, Source(ids, ids, ids))
    assert found.shape == (1, 2, 6)  # 2 hypotheses of the beam, `num_beams`


@pytest.mark.parametrize("key", ["forced_eos_token_id", "bad_words_ids"])
def test_absent_is_not_what_our_searches_do(key: str) -> None:
    """`generate` then cuts an output off at the limit, and may say the padding."""
    message = rf"^(generation_)?config\.json: {key} is None; .* is all that our searches do"
    without = {k: v for k, v in CONFIG.items() if k != key}
    for config, generation in (
        (without, None),
        ({**CONFIG, key: None}, None),
        (CONFIG, {k: v for k, v in ASKED.items() if k != key}),
    ):
        with pytest.raises(UserError, match=message):
            marian.convert(config, state(), generation)


def test_a_bias_may_forbid_the_padding_in_bad_words_place() -> None:
    weights = state()
    weights[BIAS][0, PAD] = marian.NEVER
    config = {k: v for k, v in CONFIG.items() if k != "bad_words_ids"}
    assert marian.convert(config, weights).decoding.beam == 2


def test_generation_config_alone_is_asked_where_there_is_one() -> None:
    asked = {**ASKED, "num_beams": None}
    imported = marian.convert({**CONFIG, "num_beams": 7, "do_sample": True}, state(), asked)
    assert imported.decoding.beam == 1
    for key in ("eos_token_id", "decoder_start_token_id"):
        with pytest.raises(UserError, match=rf"generation_config.json has no {key}; config.json's"):
            marian.convert(CONFIG, state(), {k: v for k, v in ASKED.items() if k != key})
    imported = marian.convert(CONFIG, state(), {k: v for k, v in ASKED.items() if k[:3] != "pad"})
    assert imported.theirs_of[0] == PAD


def test_a_key_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UserError, match=r"generation_config.json: of_2030 is 1; no transformers"):
        marian.convert(MODEL, state(), {**ASKED, "of_2030": 1})


@pytest.mark.parametrize("beam", [4, 6])
def test_opus_mt_imports_as_it_ships(tmp_path: Path, beam: int) -> None:
    config = {**CONFIG, **OPUS_CONFIG, "num_beams": beam}
    del config["length_penalty"]
    decoding = DecodingConfig(beam=beam, length_penalty="power", alpha=1.0)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(state(), tmp_path / "model.safetensors")
    assert marian.load(tmp_path).decoding == decoding
    generation = {**OPUS_GENERATION, "num_beams": beam}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    imported = marian.load(tmp_path)
    assert imported.decoding == decoding
    assert imported.params["embedding"]["output_bias"][0] == marian.NEVER  # renormalize_logits


TABLES = ("shared", "decoder.embed_tokens", "encoder.embed_tokens", "lm_head")
SHARED, TYING = "share_encoder_decoder_embeddings", "tie_word_embeddings"


def stored(*tables: str) -> dict[str, np.ndarray]:
    """A model's tensors with these tables, the last of other numbers than the rest."""
    weights = state()
    table = weights.pop("model.shared.weight")
    names = ["lm_head.weight" if t == "lm_head" else f"model.{t}.weight" for t in tables]
    return {**weights, **dict.fromkeys(names, table), names[-1]: table + np.float32(1e-3)}


@pytest.mark.parametrize("first", TABLES)
@pytest.mark.parametrize("second", TABLES)
def test_tables_that_are_one_must_not_differ(first: str, second: str) -> None:
    if first == second:
        return
    with pytest.raises(UserError) as error:
        marian.convert(CONFIG, stored(first, second))
    key = TYING if "lm_head" in (first, second) else SHARED
    assert all(name in str(error.value) for name in (first, second, key))
    assert "differ, but config.json says that they are one" in str(error.value)


def test_tables_that_are_not_one_may_differ() -> None:
    tied_output = {**CONFIG, SHARED: False}
    marian.convert(tied_output, stored("decoder.embed_tokens", "encoder.embed_tokens"))
    marian.convert({**CONFIG, TYING: False}, stored("shared", "lm_head"))
    with pytest.raises(UserError, match=rf"decoder.embed_tokens.weight and lm_head.*{TYING}"):
        marian.convert(
            tied_output, stored("encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
        )
    not_tied = {**CONFIG, TYING: False}
    marian.convert(not_tied, stored("lm_head", "encoder.embed_tokens", "decoder.embed_tokens"))


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("depth", [100, 100_000])
def test_json_nested_absurdly(tmp_path: Path, name: str, depth: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / name).write_text('{"a":' * depth + "1" + "}" * depth)
    with pytest.raises(UserError, match=rf"{name} is nested too deeply; fetch it again"):
        marian.load(tmp_path)
