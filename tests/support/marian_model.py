"""A small Marian model of random numbers, as transformers' `save_pretrained` writes it."""

import io
import json
from pathlib import Path

import numpy as np
import sentencepiece
from safetensors.numpy import save_file

TEXTS = {
    "source": ["la casa roja", "el gato ve la casa", "una mesa azul", "el perro ve el gato"],
    "target": ["the red house", "the cat sees the house", "a blue table", "the dog sees the cat"],
}
V, D, F, H, P = 37, 6, 11, 3, 17  # theirs; P: positions
SPECIAL = {"pad_token_id": V - 1, "decoder_start_token_id": V - 1, "eos_token_id": 0}
CONFIG = {
    "model_type": "marian",
    "vocab_size": V,
    "d_model": D,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": H,
    "decoder_attention_heads": H,
    "encoder_ffn_dim": F,
    "decoder_ffn_dim": F,
    "max_position_embeddings": P,
    "activation_function": "swish",
    "scale_embedding": True,
    "num_beams": 2,
    "length_penalty": 0.5,
    "forced_eos_token_id": 0,
    "bad_words_ids": [[V - 1]],
    **SPECIAL,
}
TABLES = {
    "three_way": {"shared"},
    "two_way": {"encoder.embed_tokens", "decoder.embed_tokens"},
    "none": {"encoder.embed_tokens", "decoder.embed_tokens", "lm_head"},
}
UNTIED = {
    "three_way": {},
    "two_way": {"share_encoder_decoder_embeddings": False},
    "none": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
}


def state(tied: str = "three_way", V: int = V) -> dict[str, np.ndarray]:
    """A model's tensors, of random numbers, as `save_pretrained` names them."""
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"final_logits_bias": (1, V)}
    for table in TABLES[tied]:
        shapes["lm_head.weight" if table == "lm_head" else f"model.{table}.weight"] = (V, D)
    for side, layers in (("encoder", 1), ("decoder", 2)):
        attentions = ["self_attn", *["encoder_attn"] * (side == "decoder")]
        for path in (f"model.{side}.layers.{i}" for i in range(layers)):
            for attention in attentions:
                for kind in "qkv":
                    shapes[f"{path}.{attention}.{kind}_proj.weight"] = (D, D)
                    shapes[f"{path}.{attention}.{kind}_proj.bias"] = (D,)
                shapes[f"{path}.{attention}.out_proj.weight"] = (D, D)
                shapes[f"{path}.{attention}.out_proj.bias"] = (D,)
            for norm in [*(f"{name}_layer_norm" for name in attentions), "final_layer_norm"]:
                shapes |= {f"{path}.{norm}.weight": (D,), f"{path}.{norm}.bias": (D,)}
            shapes |= {f"{path}.fc1.weight": (F, D), f"{path}.fc1.bias": (F,)}
            shapes |= {f"{path}.fc2.weight": (D, F), f"{path}.fc2.bias": (D,)}
    return {k: random.standard_normal(shape, np.float32) for k, shape in sorted(shapes.items())}


def write_pieces(folder: Path) -> int:
    """Two SentencePiece models and a vocabulary, `</s>` first and `<pad>` last, as Marian's are.

    Returns how many pieces the vocabulary has.
    """
    pieces: dict[str, None] = {"</s>": None, "<unk>": None}
    for side, texts in TEXTS.items():
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 4),
            model_writer=model,
            model_type="unigram",
            vocab_size=30,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / f"{side}.spm").write_bytes(model.getvalue())
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        found = (processor.id_to_piece(i) for i in range(3, processor.get_piece_size()))
        pieces |= dict.fromkeys(piece for piece in found if "j" not in piece)
    pieces |= {">>deu<<": None, "<pad>": None}
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return len(vocabulary)


def write_model(folder: Path) -> None:
    """A whole folder: pieces, configuration and weights."""
    folder.mkdir()
    vocab = write_pieces(folder)
    padding = {"pad_token_id": vocab - 1, "decoder_start_token_id": vocab - 1}
    config = CONFIG | padding | {"vocab_size": vocab, "bad_words_ids": [[vocab - 1]]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(state(V=vocab), folder / "model.safetensors")
