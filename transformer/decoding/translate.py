"""Sentences in, translations out: batching, one compiled search per shape, and the way back.

Sentences are sorted by length and cut into batches, longest first. A batch has the length of the
smallest bucket that takes its longest sentence and as many rows as the token budget allows at that
length; rows left over are empty. So there is one compiled search per bucket, and a request too
small to fill a batch takes one of few smaller row counts.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from transformer.batch import BOS, EOS, PAD, Source
from transformer.config import DecodingConfig
from transformer.decoding import memory, penalties
from transformer.decoding.beam import beam_search
from transformer.decoding.greedy import greedy_search
from transformer.decoding.input_shapes import InputShapes
from transformer.decoding.search import Hypotheses
from transformer.errors import UserError
from transformer.models.quantization import quantized
from transformer.models.seq2seq import Cache, Seq2Seq
from transformer.sharding import Layout
from transformer.streams import BadLine

T = TypeVar("T")

_line_breaks = re.compile("[\r\n]+")


@runtime_checkable
class TextCoder(Protocol):
    """What is asked of a tokenizer: text to ids without special ones, and back."""

    def encode(self, texts: list[str], /) -> list[list[int]]: ...

    def decode(self, ids: list[list[int]], /) -> list[str]: ...


@dataclass(frozen=True)
class Translation:
    """One hypothesis for a sentence."""

    text: str  # one line: what a model spells beyond it becomes spaces
    score: float  # log_prob / length penalty; what hypotheses are ranked by
    log_prob: float  # natural, of the tokens and the </s> behind them
    tokens: tuple[int, ...]  # without </s>


_EMPTY = Translation(text="", score=0.0, log_prob=0.0, tokens=())
NOT_FINITE = BadLine(
    "has no translation: the model's scores are not finite numbers; take the parameters of an "
    "earlier checkpoint"
)


class Translator:
    """A model, its parameters and its tokenizer, with how to search. Makes text from text.

        Translator(model, params, tokenizer).translate(["la casa roja"])[0][0].text

    `params` may be replaced between calls (same shapes): nothing is compiled anew.
    """

    def __init__(
        self,
        model: Seq2Seq,
        params: Any,
        tokenizer: TextCoder,
        decoding: DecodingConfig | None = None,
        *,
        shapes: InputShapes | None = None,
        layout: Layout | None = None,
    ) -> None:
        """Compiles nothing yet.

        Args:
            model: any family; only the calls of its contract are used.
            params: its collection "params".
            tokenizer: text to ids and back; PAD, BOS and EOS are those of `transformer.batch`.
            decoding: how to search; None: the defaults, a beam of 4.
            shapes: what sentences are padded to.
            layout: the mesh to search on, lengths whole; None: one device.
        """
        c, shapes = decoding or DecodingConfig(), shapes or InputShapes()
        self._config, self._shapes = c, shapes
        self._layout = layout or Layout.single()
        self._model = model
        self._tokenizer = tokenizer
        self._penalty = penalties.length_penalty(c.length_penalty, c.alpha)
        self._search = self._jit(self._search_batch)
        self._fitting: set[tuple[int, int]] = set()  # shapes that memory may hold
        self.params = params

    @classmethod
    def from_marian(cls, folder: str | os.PathLike[str]) -> "Translator":
        """Opens a translation model that Hugging Face's transformers saved as a `MarianMTModel`.

        Raises:
            UserError: a file is missing or damaged, or the model asks for what we cannot do.
        """
        from transformer.interop import Pieces, marian
        from transformer.models import build_model

        imported = marian.load(folder)
        pieces = Pieces(folder, imported.ours_of)
        model = build_model(imported.config)
        return cls(model, imported.params, pieces, imported.decoding, shapes=imported.shapes)

    def _jit(self, function: Callable[..., Any]) -> Any:
        return self._layout.jit(function, out_shardings=self._layout.replicated)

    @property
    def params(self) -> Any:
        """The model's, as they are computed with."""
        return self._params

    @params.setter
    def params(self, params: Any) -> None:
        if self._config.weights == "int8":
            shapes = isinstance(jax.tree.leaves(params)[0], jax.ShapeDtypeStruct)
            params = jax.eval_shape(quantized, params) if shapes else jax.jit(quantized)(params)
        self._params = params

    def refuse_too_large(self, lengths: Sequence[int]) -> None:
        """Refuses to translate sentences of these many tokens where no memory can hold that.

        Raises:
            UserError: names the keys, what they take at least, and what there is.
        """
        for _, shape in self._batches(dict(enumerate(lengths))):
            self._refuse_too_large(*shape)

    def _refuse_too_large(self, rows: int, length: int) -> None:
        positions = rows * self._config.beam * self._longest(length)
        if positions <= memory.SMALL or (rows, length) in self._fitting:
            return

        def first_step(params: Any, source: Source) -> tuple[list[Array], Array]:
            model, cache = self._begin(params, source)
            tokens_BW = jnp.zeros((rows, self._config.beam), jnp.int32)
            hidden_BWD, cache = model(tokens_BW, cache, method="step")
            return jax.tree.leaves(cache), model(hidden_BWD, method="logits")

        source = self._layout.place(Source.of([], (rows, length)))
        cache, logits = jax.eval_shape(self._layout.jit(first_step), self.params, source)
        sizes = (rows, length, self._config.beam, self._config.extra_length)
        memory.refuse_too_large(memory.least_bytes(cache, logits, self._config.beam), *sizes)
        memory.refuse_too_large(memory.bytes_of(self._compiled(source)), *sizes)
        self._fitting.add((rows, length))

    def _compiled(self, source: Source) -> Any:
        """The search's program for sources of this shape."""
        arrays, structure = jax.tree.flatten(source)

        def search(params: Any, *arrays: Array) -> Hypotheses:
            return self._search_batch(params, jax.tree.unflatten(structure, arrays))

        search.__name__ = self._search_batch.__name__  # one entry in the compilation cache
        return self._jit(search).lower(self.params, *arrays).compile()

    def _begin(self, params: Any, source: Source) -> tuple[Any, Cache]:
        """The model's calls with these parameters, and the cache that a search begins with."""
        model: Any = partial(self._model.apply, {"params": params})
        encoded = model(source, method="encode")
        length = self._longest(source.ids.shape[1])
        return model, model(encoded, length, self._config.beam, method="init_cache")

    def _longest(self, length: int) -> int:
        """Tokens of an output at most, of sources padded to a length."""
        longest, most = length + self._config.extra_length, self._shapes.max_output_length
        return longest if most is None else min(longest, most)

    def translate(
        self, sentences: Sequence[str], *, first_line: int = 1
    ) -> list[list[Translation]]:
        """Each sentence's translations, best first, in the order of the sentences.

        A line with no token in it translates to one empty line and does not touch the model.

        Args:
            sentences: one line of text each.
            first_line: the number that errors give to the first of them.

        Raises:
            UserError: a sentence is longer than the model takes (nothing is searched then), or the
                model's scores are no numbers.
        """
        sources = self._sources(sentences)
        _refuse_bad(sources, first_line)
        results = self._results(sources)
        return _refuse_bad(results, first_line)

    def translate_each(
        self, sentences: Sequence[str | BadLine]
    ) -> list[list[Translation] | BadLine]:
        """What `translate` gives, or why a sentence has none: a bad one costs only itself."""
        return self._results(self._sources(sentences))

    def _sources(self, sentences: Sequence[str | BadLine]) -> list[list[int] | BadLine]:
        """The ids of each sentence with EOS; none where it has no token."""
        if isinstance(sentences, str):
            raise UserError("translate takes a list of sentences, not one alone: [sentence]")
        texts = {i: x.strip() for i, x in enumerate(sentences) if not isinstance(x, BadLine)}
        sources: list[list[int] | BadLine]
        sources = [x if isinstance(x, BadLine) else [] for x in sentences]
        for i in [i for i, text in texts.items() if not text.isascii()]:
            try:
                texts[i].encode()
            except UnicodeEncodeError:
                del texts[i]
                sources[i] = BadLine("is not UTF-8 text (half a surrogate pair)")
        for i, ids in zip(texts, self._tokenizer.encode([*texts.values()]), strict=True):
            if len(ids) >= self._shapes.max_length:
                sources[i] = BadLine(
                    f"has {len(ids) + 1} tokens, </s> included, and the model takes "
                    f"{self._shapes.max_length}: split the line, or train with a longer max_length"
                )
            elif ids:
                sources[i] = [*ids, EOS]
        return sources

    def _results(self, sources: list[list[int] | BadLine]) -> list[list[Translation] | BadLine]:
        with memory.said_in_one_line(self._config.beam, self._config.extra_length):
            return self._search_all(sources)

    def _search_all(self, sources: list[list[int] | BadLine]) -> list[list[Translation] | BadLine]:
        results = [x if isinstance(x, BadLine) else [_EMPTY] for x in sources]
        searched = {i: x for i, x in enumerate(sources) if x and not isinstance(x, BadLine)}
        running: deque[tuple[list[int], Hypotheses]] = deque()

        def collect() -> None:
            rows, hypotheses = running.popleft()
            for i, translations in zip(rows, self._read(hypotheses, len(rows)), strict=True):
                results[i] = translations or NOT_FINITE

        for rows, shape in self._batches({i: len(ids) for i, ids in searched.items()}):
            self._refuse_too_large(*shape)
            source = self._layout.place(Source.of([searched[i] for i in rows], shape))
            running.append((rows, self._search(self.params, source)))
            if len(running) > 1:  # the device is at work on this batch while the last one is read
                collect()
        while running:
            collect()
        return results

    def _search_batch(self, params: Any, source: Source) -> Hypotheses:
        """What is compiled, once per shape [B, S] of the source."""
        length = self._longest(source.ids.shape[1])
        lengths_B = jnp.sum(source.segments > 0, axis=1)
        max_lengths_B = jnp.where(lengths_B > 0, lengths_B + self._config.extra_length, 0)
        model, cache = self._begin(params, source)

        def step(tokens_BW: Int[Array, "B W"], cache: Cache) -> tuple[Array, Cache]:
            hidden_BWD, cache = model(tokens_BW, cache, method="step")
            return model(hidden_BWD, method="logits"), cache

        common = {
            "pad": PAD,
            "bos": BOS,
            "eos": EOS,
            "length": length,
            "max_lengths_B": max_lengths_B,
            "penalty": self._penalty,
        }
        if self._config.beam == 1:
            return greedy_search(step, cache, **common)
        return beam_search(
            step, cache, width=self._config.beam, n_best=self._config.n_best, **common
        )

    def _batches(self, lengths: dict[int, int]) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Sentences' numbers, and the shape [B, S] that takes them; longest sentences first."""
        order = sorted(lengths, key=lambda i: -lengths[i])
        while order:
            length = self._shapes.length(lengths[order[0]], len(lengths))
            multiple = self._shapes.row_multiple
            full = self._config.tokens_per_batch // length // multiple * multiple
            rows = multiple
            while rows < min(len(lengths), full):
                rows = min(rows * 4, full)
            yield order[:rows], (rows, length)
            order = order[rows:]

    def _read(self, hypotheses: Hypotheses, rows: int) -> list[list[Translation]]:
        """The first `rows` sentences' translations, as text."""
        fetched = jax.device_get(hypotheses)
        places = [
            (b, w) for b in range(rows) for w in np.flatnonzero(np.isfinite(fetched.scores[b]))
        ]
        tokens = [fetched.tokens[b, w, : fetched.lengths[b, w] - 1].tolist() for b, w in places]
        results: list[list[Translation]] = [[] for _ in range(rows)]
        for (b, w), ids, text in zip(places, tokens, self._tokenizer.decode(tokens), strict=True):
            results[b].append(
                Translation(
                    text=_line_breaks.sub(" ", text),
                    score=float(fetched.scores[b, w]),
                    log_prob=float(fetched.log_probs[b, w]),
                    tokens=tuple(ids),
                )
            )
        return results


def _refuse_bad(lines: list[list[T] | BadLine], first_line: int) -> list[list[T]]:
    """The lines, where all are good. Raises UserError about the first bad one."""
    for number, line in enumerate(lines, first_line):
        if isinstance(line, BadLine):
            raise UserError(f"line {number} {line.why}")
    return [line for line in lines if not isinstance(line, BadLine)]
