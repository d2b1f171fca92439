"""Attention weights as a trained model computes them, by piece and by word."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, PyTree

from transformer.batch import Source, Target
from transformer.errors import UserError
from transformer.sharding import Layout, current

WORD_START = "▁"  # SentencePiece's mark, in place of the space before a word
END = "</s>"
_BYTES = re.compile(r"(?:<0x[0-9A-F]{2}>)+")  # what spells a character that has no piece


@dataclass(frozen=True)
class AttentionMaps:
    """The weights of the three uses of attention (AIAYN §3.2.3), float32; None where there is none.

    Row t of a decoder's map belongs to the step that reads `target.ids[:, t]` and writes
    `target.labels[:, t]`. Rows sum to 1; those of padding are 0. A decoder alone has one sequence
    of both, T = J: segment by segment source and then target, padding last.
    """

    encoder_self_NBHSS: Float[Array | np.ndarray, "N_encoder B H S S"] | None
    decoder_self_NBHTT: Float[Array | np.ndarray, "N_decoder B H T T"] | None
    cross_NBHTS: Float[Array | np.ndarray, "N_decoder B H T S"] | None


def attention_maps(
    model: nn.Module,
    params: PyTree,
    source: Source,
    target: Target,
    *,
    layers: Sequence[int] | None = None,
) -> AttentionMaps:
    """Runs the model on pairs of sentences, in teacher forcing, and keeps what it attended to.

    The weights are computed from the queries and keys, whatever backend the model attends by.

    Args:
        model: any family of `transformer.models`.
        params: its parameters, unboxed.
        source: [B, S]; the caller's layout is in force (`with layout:`).
        target: [B, T]; `ids` are what the decoder is fed.
        layers: of each stack, from 0: N in the result is their number, and only their weights are
            ever computed; None: all.

    Raises:
        UserError: the family records no attention, there is no such layer, or no layout is in
            force.
    """
    return AttentionRecorder(model, current(), layers)(params, source, target)


class AttentionRecorder:
    """`attention_maps` of one model on one layout, compiled once for each shape of sentences."""

    def __init__(self, model: nn.Module, layout: Layout, layers: Sequence[int] | None = None):
        if layers is not None:
            config: Any = model.config  # pyright: ignore[reportAttributeAccessIssue]
            # As straight code, from which the compiler takes out what nobody asks for.
            model = model.clone(config=dataclasses.replace(config, unroll=True))

        def asked_for(weights_NBHTS: Array) -> Array:
            if layers is None:
                return weights_NBHTS
            depth = len(weights_NBHTS)
            if not layers or not all(0 <= layer < depth for layer in layers):
                raise UserError(
                    f"layers {list(layers)} are not all of the 0 to {depth - 1} that attend"
                )
            return weights_NBHTS[np.asarray(layers)]

        def run(params: PyTree, source: Source, target: Target) -> tuple[PyTree, PyTree]:
            call: Any = functools.partial(model.apply, {"params": params}, mutable=["attention"])
            memory, encoder = call(source, method="encode")
            _, decoder = call(target, memory, method="decode")
            return jax.tree.map(asked_for, (encoder, decoder))

        self._run = layout.jit(run)

    def __call__(self, params: PyTree, source: Source, target: Target) -> AttentionMaps:
        encoder, decoder = self._run(params, source, target)
        maps = AttentionMaps(
            _weights(encoder, "self_attention"),
            _weights(decoder, "self_attention"),
            _weights(decoder, "cross_attention"),
        )
        if all(weights is None for weights in vars(maps).values()):
            raise UserError(
                "the model records no attention weights (a recurrent one without attention?): "
                "there is nothing to show"
            )
        return maps


def _weights(recorded: PyTree, use: str) -> Array | None:
    """The one leaf that modules of this name have sown."""
    leaves = jax.tree_util.tree_leaves_with_path(recorded)
    sown = [leaf for path, leaf in leaves if f"'{use}'" in jax.tree_util.keystr(path)]
    if len(sown) > 1:
        raise ValueError(f"{len(sown)} modules named {use} recorded attention; expected one stack")
    return sown[0] if sown else None


@dataclass(frozen=True)
class WordMap:
    """How much each target word drew on each source word."""

    weights_TS: Float[np.ndarray, "T S"]
    target: list[str]
    source: list[str]


def word_map(
    weights: Float[Array | np.ndarray, "T S"],
    target_pieces: Sequence[str],
    source_pieces: Sequence[str],
    *,
    keep_end: bool = True,
) -> WordMap:
    """Pieces joined into words: a mean over a target word's pieces, a sum over a source word's.

    So a row still says where one unit of attention went.

    Args:
        weights: of one head, or a mean over heads.
        target_pieces: T pieces as SentencePiece writes them, `▁` before a word.
        source_pieces: S of them.
        keep_end: False leaves out rows and columns of `</s>`; rows then sum to less than 1.

    Raises:
        ValueError: other numbers of pieces than rows and columns.
    """
    weights_TS = np.asarray(weights, np.float32)
    if weights_TS.shape != (len(target_pieces), len(source_pieces)):
        raise ValueError(
            f"attention of shape {weights_TS.shape} for {len(target_pieces)} target and "
            f"{len(source_pieces)} source pieces"
        )
    targets, sources = words(target_pieces), words(source_pieces)
    if not keep_end:
        targets, sources = ([w for w in side if w[0] != END] for side in (targets, sources))
    joined_TS = np.array(
        [[weights_TS[t, s].sum(1).mean() for _, s in sources] for _, t in targets], np.float32
    )
    joined_TS = joined_TS.reshape(len(targets), len(sources))
    return WordMap(joined_TS, [word for word, _ in targets], [word for word, _ in sources])


def words(pieces: Sequence[str]) -> list[tuple[str, slice]]:
    """Words and the range of pieces that spell each; `</s>` and its like stand alone."""
    starts = [
        i
        for i, piece in enumerate(pieces)
        if i == 0 or piece.startswith(WORD_START) or _alone(piece) or _alone(pieces[i - 1])
    ]
    ranges = [slice(*ends) for ends in itertools.pairwise([*starts, len(pieces)])]
    return [(_spell("".join(pieces[r])), r) for r in ranges]


def _alone(piece: str) -> bool:
    return piece in (END, "<s>", "<unk>", "<pad>")


def _spell(text: str) -> str:
    def decode(match: re.Match[str]) -> str:
        return bytes.fromhex(match[0].replace("<0x", "").replace(">", "")).decode(errors="replace")

    return _BYTES.sub(decode, text).removeprefix(WORD_START) or WORD_START
