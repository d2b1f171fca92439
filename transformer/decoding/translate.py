"""Sentences in, translations out: batching, one compiled search per shape, and the way back.

Sentences are sorted by length and cut into batches, longest first. A batch has the length of the
smallest bucket that takes its longest sentence and as many rows as the token budget allows at that
length; rows left over are empty. So there is one compiled search per bucket, and a request too
small to fill a batch takes one of few smaller row counts.
"""

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

from transformer.batch import Source
from transformer.data.tokenizers import BOS, EOS, PAD
from transformer.decoding import memory, penalties
from transformer.decoding.beam import beam_search
from transformer.decoding.greedy import greedy_search
from transformer.decoding.search import Hypotheses
from transformer.errors import UserError
from transformer.models.quantization import quantized
from transformer.models.seq2seq import Cache, Seq2Seq
from transformer.runtime import BadLine

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

    `params` may be replaced between calls (same shapes): nothing is compiled anew.
    """

    def __init__(
        self,
        model: Seq2Seq,
        params: Any,
        tokenizer: TextCoder,
        *,
        beam: int,
        length_penalty: str,
        alpha: float,
        extra_length: int,
        n_best: int,
        tokens_per_batch: int,
        row_multiple: int,
        length_multiple: int,
        max_length: int,
        max_output_length: int | None = None,
        weights: str = "float",
        jit: Callable[[Callable[..., Any]], Callable[..., Any]] = jax.jit,
        place: Callable[[Source], Source] = jax.device_put,
    ) -> None:
        """Compiles nothing yet.

        Args:
            model: any family; only the calls of its contract are used.
            params: its collection "params".
            tokenizer: text to ids and back; PAD, BOS and EOS are those of `data.tokenizers`.
            beam: W; 1 searches greedily.
            length_penalty: a name that `decoding.penalties` knows.
            alpha: its exponent.
            extra_length: output tokens at most, above the source's; both count `</s>`.
            n_best: translations of each sentence, at most `beam`.
            tokens_per_batch: source tokens of a batch at most, padding included, but never fewer
                rows than `row_multiple`.
            row_multiple: rows of every batch are a multiple of this.
            length_multiple: and source lengths of this.
            max_length: source tokens that the model takes, `</s>` included.
            max_output_length: output tokens at most, `</s>` included, whatever the source's length
                and `extra_length`; None: these alone say.
            weights: `float`, or `int8` (models/int8.py): smaller, and on CPUs mostly faster.
            jit: compiles `search(params, source) -> Hypotheses`; the place to name shardings.
            place: puts a batch of NumPy arrays where the compiled search wants it.

        Raises:
            UserError: the values do not go together.
        """
        if n_best > beam:
            raise UserError(f"n_best is {n_best} but a beam of {beam} gives no more than that")
        self._weights = weights
        self._model = model
        self._tokenizer = tokenizer
        self._beam = beam
        self._n_best = n_best
        self._penalty = penalties.length_penalty(length_penalty, alpha)
        self._extra_length = extra_length
        self._max_length = max_length
        self._max_output_length = max_output_length
        self._tokens_per_batch = tokens_per_batch
        self._row_multiple = row_multiple
        self._buckets = bucket_lengths(max_length, length_multiple)
        self._place = place
        self._jit, self._search = jit, jit(self._search_batch)
        self._fitting: set[tuple[int, int]] = set()  # shapes that memory may hold
        self.params = params

    @property
    def params(self) -> Any:
        """The model's, as they are computed with."""
        return self._params

    @params.setter
    def params(self, params: Any) -> None:
        if self._weights == "int8":
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
        positions = rows * self._beam * self._longest(length)
        if positions <= memory.SMALL or (rows, length) in self._fitting:
            return

        def first_step(params: Any, source: Source) -> tuple[list[Array], Array]:
            model, cache = self._begin(params, source)
            tokens_BW = jnp.zeros((rows, self._beam), jnp.int32)
            hidden_BWD, cache = model(tokens_BW, cache, method="step")
            return jax.tree.leaves(cache), model(hidden_BWD, method="logits")

        source = self._place(_pad([], (rows, length)))
        cache, logits = jax.eval_shape(self._jit(first_step), self.params, source)
        sizes = (rows, length, self._beam, self._extra_length)
        memory.refuse_too_large(memory.least_bytes(cache, logits, self._beam), *sizes)
        if program := self._compiled(source):
            memory.refuse_too_large(memory.bytes_of(program), *sizes)
        self._fitting.add((rows, length))

    def _compiled(self, source: Source) -> Any:
        """The search's program for sources of this shape; None where the jit hook makes none."""
        arrays, structure = jax.tree.flatten(source)

        def search(params: Any, *arrays: Array) -> Hypotheses:
            return self._search_batch(params, jax.tree.unflatten(structure, arrays))

        search.__name__ = self._search_batch.__name__  # one entry in the compilation cache
        lower = getattr(self._jit(search), "lower", None)
        return lower(self.params, *arrays).compile() if lower else None

    def _begin(self, params: Any, source: Source) -> tuple[Any, Cache]:
        """The model's calls with these parameters, and the cache that a search begins with."""
        model: Any = partial(self._model.apply, {"params": params})
        encoded = model(source, method="encode")
        length = self._longest(source.ids.shape[1])
        return model, model(encoded, length, self._beam, method="init_cache")

    def _longest(self, length: int) -> int:
        """Tokens of an output at most, of sources padded to a length."""
        longest = length + self._extra_length
        return longest if self._max_output_length is None else min(longest, self._max_output_length)

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
        texts = {i: x.strip() for i, x in enumerate(sentences) if not isinstance(x, BadLine)}
        sources: list[list[int] | BadLine]
        sources = [x if isinstance(x, BadLine) else [] for x in sentences]
        for i, ids in zip(texts, self._tokenizer.encode([*texts.values()]), strict=True):
            if len(ids) >= self._max_length:
                sources[i] = BadLine(
                    f"has {len(ids) + 1} tokens, </s> included, and the model takes "
                    f"{self._max_length}: split the line, or train with a longer max_length"
                )
            elif ids:
                sources[i] = [*ids, EOS]
        return sources

    def _results(self, sources: list[list[int] | BadLine]) -> list[list[Translation] | BadLine]:
        with memory.said_in_one_line(self._beam, self._extra_length):
            return self._search_all(sources)

    def _search_all(self, sources: list[list[int] | BadLine]) -> list[list[Translation] | BadLine]:
        results = [x if isinstance(x, BadLine) else [_EMPTY] for x in sources]
        searched = {i: x for i, x in enumerate(sources) if x and not isinstance(x, BadLine)}
        running: deque[tuple[list[int], Hypotheses]] = deque()

        def collect() -> None:
            rows, hypotheses = running.popleft()
            for i, found in zip(rows, self._read(hypotheses, len(rows)), strict=True):
                results[i] = found or NOT_FINITE

        for rows, shape in self._batches({i: len(ids) for i, ids in searched.items()}):
            self._refuse_too_large(*shape)
            source = self._place(_pad([searched[i] for i in rows], shape))
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
        max_lengths_B = jnp.where(lengths_B > 0, lengths_B + self._extra_length, 0)
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
        if self._beam == 1:
            return greedy_search(step, cache, **common)
        return beam_search(step, cache, width=self._beam, n_best=self._n_best, **common)

    def _batches(self, lengths: dict[int, int]) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Sentences' numbers, and the shape [B, S] that takes them; longest sentences first."""
        order = sorted(lengths, key=lambda i: -lengths[i])
        while order:
            length = next(size for size in self._buckets if size >= lengths[order[0]])
            full = self._tokens_per_batch // length // self._row_multiple * self._row_multiple
            rows = self._row_multiple
            while rows < min(len(lengths), full):
                rows = min(rows * 4, full)
            yield order[:rows], (rows, length)
            order = order[rows:]

    def _read(self, hypotheses: Hypotheses, rows: int) -> list[list[Translation]]:
        """The first `rows` sentences' translations, as text."""
        found = jax.device_get(hypotheses)
        places = [(b, w) for b in range(rows) for w in np.flatnonzero(np.isfinite(found.scores[b]))]
        tokens = [found.tokens[b, w, : found.lengths[b, w] - 1].tolist() for b, w in places]
        results: list[list[Translation]] = [[] for _ in range(rows)]
        for (b, w), ids, text in zip(places, tokens, self._tokenizer.decode(tokens), strict=True):
            results[b].append(
                Translation(
                    text=_line_breaks.sub(" ", text),
                    score=float(found.scores[b, w]),
                    log_prob=float(found.log_probs[b, w]),
                    tokens=tuple(ids),
                )
            )
        return results


def bucket_lengths(max_length: int, multiple: int) -> list[int]:
    """Few lengths up to `max_length`, about half as long again each, all multiples of `multiple`.

    bucket_lengths(100, 8) == [8, 16, 24, 32, 48, 72, 104]
    """
    most = -(-max_length // multiple)
    counts = [1]
    while counts[-1] < most:
        counts.append(min(counts[-1] + max(1, counts[-1] // 2), most))
    return [count * multiple for count in counts]


def _refuse_bad(lines: list[list[T] | BadLine], first_line: int) -> list[list[T]]:
    """The lines, where all are good. Raises UserError about the first bad one."""
    for number, line in enumerate(lines, first_line):
        if isinstance(line, BadLine):
            raise UserError(f"line {number} {line.why}")
    return [line for line in lines if not isinstance(line, BadLine)]


def _pad(sentences: list[list[int]], shape: tuple[int, int]) -> Source:
    """Rows of one sentence each; what is left of rows and columns is padding, segment 0."""
    ids_BS = np.full(shape, PAD, np.int32)
    segments_BS = np.zeros(shape, np.int32)
    for row, sentence in enumerate(sentences):
        ids_BS[row, : len(sentence)] = sentence
        segments_BS[row, : len(sentence)] = 1
    positions_BS = np.arange(shape[1], dtype=np.int32) * segments_BS
    return Source(ids=ids_BS, positions=positions_BS, segments=segments_BS)
