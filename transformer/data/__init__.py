"""How text becomes batches.

    corpus = sources.Text(...)                    every line a pair, streaming, problems noted
    tokenizers.train(corpus.pairs("train"), path, ...)
    store = open_store(cache_dir, ...)            every pair's ids, on disk, mapped into memory
    problems = find_problems(store, ...)          which pairs training leaves out, and why
    plan = plan_buckets(store.lengths, portions, ...)   who shares a batch, in which shape
    batches = Batches(Same(store, plan), seed)    batches[step]: arrays, laid out as in batch.py
    with prefetch(make, start, stop, depth) as ready: ...

A batch is a function of (corpus, tokenizer, plan, seed, step), whatever the number of hosts and
devices: to resume, a run needs its step and nothing else, and a host reads only its own rows.
"""

from transformer.data.batching import (
    Plan,
    Portion,
    Rows,
    Shape,
    everything,
    plan_buckets,
    plan_packed,
)
from transformer.data.masking import Blanks, Masking
from transformer.data.pairs import Pair, Problem
from transformer.data.passages import Files
from transformer.data.pipeline import Batches, Epochs, Prefetch, Same, in_order, prefetch
from transformer.data.sampling import Sampled
from transformer.data.selection import find_problems
from transformer.data.sources import (
    SOURCES,
    Agreement,
    CasaRoja,
    Corpus,
    Digits,
    Mixture,
    OneSide,
    Orchard,
    Recall,
    Tfds,
    Treebank,
    open_corpus,
)
from transformer.data.store import Store, open_store, store_key
from transformer.data.text import Text
from transformer.data.tokenizers import UNK, SentencePieceTokenizer, Tokenizer

__all__ = [
    "SOURCES",
    "UNK",
    "Agreement",
    "Batches",
    "Blanks",
    "CasaRoja",
    "Corpus",
    "Digits",
    "Epochs",
    "Files",
    "Masking",
    "Mixture",
    "OneSide",
    "Orchard",
    "Pair",
    "Plan",
    "Portion",
    "Prefetch",
    "Problem",
    "Recall",
    "Rows",
    "Same",
    "Sampled",
    "SentencePieceTokenizer",
    "Shape",
    "Store",
    "Text",
    "Tfds",
    "Tokenizer",
    "Treebank",
    "everything",
    "find_problems",
    "in_order",
    "open_corpus",
    "open_store",
    "plan_buckets",
    "plan_packed",
    "prefetch",
    "store_key",
]
