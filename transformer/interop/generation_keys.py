"""What transformers' `generate` is told by a model's files, and what our searches make of it.

`TABLE` has every key that GenerationConfig (of transformers 4 and 5) and, of old, PretrainedConfig
know. A value that is not neutral there changes what `generate` says in a way that our searches have
no part for: it is refused. Where there is a generation_config.json, transformers asks it alone, and
these keys of config.json are not read; else it asks config.json. A null is an absence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONFIG, GENERATION = "config.json", "generation_config.json"


@dataclass(frozen=True)
class Rule:
    """What is done with a key.

    Attributes:
        neutral: values with which `generate` says what our searches say, besides an absence; None:
            any.
        why: what the key does here, or why its values make no difference.
    """

    neutral: tuple[Any, ...] | None
    why: str


def _served(how: str) -> Rule:
    return Rule(None, how)


def _only(*neutral: Any) -> Rule:
    return Rule(neutral, "our searches have no part for another value")


def _no_matter(why: str) -> Rule:
    return Rule(None, why)


_SAMPLING = _no_matter("of sampling alone, which do_sample=true asks for")
_DRAFTS = _no_matter("of a second, smaller model, which the caller of `generate` gives")
_BESIDE = _no_matter("what is given back beside the text")
_SPEED = _no_matter("how it is computed, not what")
_NOTES = _no_matter("of the file, not of the search")

TABLE: dict[str, Rule] = {
    # Length.
    "max_length": _served(
        "caps the output at one token less, as it counts what decoding starts from; absent, the "
        "caller's limit alone holds (`generate` would stop at its own 20)"
    ),
    "max_new_tokens": _served("caps the output, in max_length's place"),
    "min_length": _only(0, 1),  # 1 is what decoding starts from
    "min_new_tokens": _only(0),
    "exponential_decay_length_penalty": _only(),
    "max_time": _only(),
    "stop_strings": _only(),
    # Search.
    "num_beams": _served("decoding's beam, unless the caller has another"),
    "length_penalty": _served("decoding's alpha, unless the caller has another"),
    # "never" is our rule. False ends a search by a guess, at times before the best is certain: what
    # it misses our searches find. True takes the first that end: `Keys` lets it pass where there is
    # one beam, which ends with the first.
    "early_stopping": _only(False, "never"),
    "do_sample": _only(False),
    "num_beam_groups": _only(1),
    "diversity_penalty": _only(0.0),
    "penalty_alpha": _only(0.0),
    "dola_layers": _only(),
    "constraints": _only(),
    "force_words_ids": _only(),
    "num_return_sequences": _only(1),
    "guidance_scale": _only(1.0),
    # What may be said.
    "renormalize_logits": _served("the padding takes no share of the probability"),
    "forced_eos_token_id": _served(
        "</s>, the only token at the limit, as in our searches: refused where it is another or "
        "absent, as `generate` then cuts an output off"
    ),
    "bad_words_ids": _served(
        "the padding, which our searches never say: refused where it is more, or absent without a "
        "bias that says the same"
    ),
    "forced_bos_token_id": _only(),
    "force_bos_token_to_be_generated": _only(False),
    "forced_decoder_ids": _only([]),
    "suppress_tokens": _only([]),
    "begin_suppress_tokens": _only([]),
    "sequence_bias": _only(),
    "repetition_penalty": _only(1.0),
    "encoder_repetition_penalty": _only(1.0),
    "no_repeat_ngram_size": _only(0),
    "encoder_no_repeat_ngram_size": _only(0),
    "remove_invalid_values": _only(False),
    "token_healing": _only(False),
    "watermarking_config": _only(),
    # Ids.
    "pad_token_id": _served("our PAD"),
    "eos_token_id": _served("our EOS"),
    "decoder_start_token_id": _served("our BOS"),
    "bos_token_id": _no_matter("decoding starts from decoder_start_token_id"),
    # Sampling.
    "temperature": _SAMPLING,
    "top_k": _SAMPLING,
    "top_p": _SAMPLING,
    "top_h": _SAMPLING,
    "min_p": _SAMPLING,
    "typical_p": _SAMPLING,
    "epsilon_cutoff": _SAMPLING,
    "eta_cutoff": _SAMPLING,
    # Drafts that the model corrects: with some of these `generate` searches by other rules.
    "prompt_lookup_num_tokens": _only(),
    "assistant_early_exit": _only(),
    "use_mtp": _only(False),
    "is_assistant": _DRAFTS,
    "num_assistant_tokens": _DRAFTS,
    "num_assistant_tokens_schedule": _DRAFTS,
    "assistant_confidence_threshold": _DRAFTS,
    "assistant_ensemble_weight": _DRAFTS,
    "assistant_lookbehind": _DRAFTS,
    "target_lookbehind": _DRAFTS,
    "max_matching_ngram_size": _DRAFTS,
    "speculation_type": _DRAFTS,
    # Caches: a quantised one computes something else.
    "cache_implementation": _only(
        "dynamic", "dynamic_full", "static", "offloaded", "offloaded_static", "hybrid"
    ),
    "cache_config": _SPEED,
    "use_cache": _SPEED,
    "max_cache_len": _SPEED,
    "prefill_chunk_size": _SPEED,
    "return_legacy_cache": _SPEED,
    "low_memory": _SPEED,
    "compile_config": _SPEED,
    "disable_compile": _SPEED,
    "continuous_batching_config": _SPEED,
    # What else is told.
    "output_attentions": _BESIDE,
    "output_hidden_states": _BESIDE,
    "output_scores": _BESIDE,
    "output_logits": _BESIDE,
    "return_dict_in_generate": _BESIDE,
    "generation_kwargs": _only({}),
    "transformers_version": _NOTES,
    "_from_model_config": _NOTES,
    "_commit_hash": _NOTES,
    "_original_object_hash": _NOTES,
}


def merged(config: Mapping[str, Any], generation: Mapping[str, Any] | None) -> dict[str, Any]:
    """All keys that count, nulls of `TABLE`'s left out, as transformers would ask for them.

    Args:
        config: the keys of config.json.
        generation: of generation_config.json; None: there is no such file.
    """
    if generation is None:
        generation_keys = config
    else:  # the padding is the model's too
        generation_keys = {"pad_token_id": config.get("pad_token_id"), **_said(generation)}
    own = {key: value for key, value in config.items() if key not in TABLE}
    return own | {key: value for key, value in _said(generation_keys).items() if key in TABLE}


def unknown(generation: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a generation_config.json says that no transformers known here does."""
    return {key: value for key, value in _said(generation or {}).items() if key not in TABLE}


def _said(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if value is not None}
