"""How text becomes batches.

    corpus = sources.Text(...)                    sentence pairs, streaming
    tokenizers.train(corpus.pairs("train"), path, ...)
    store = open_store(cache_dir, ...)            every pair's ids, on disk, mapped into memory
    plan = plan_buckets(store.lengths, ...)       which pairs share a batch, in which shape
    batches = Batches(store, plan, seed)          batches[step]: arrays, laid out as in batch.py
    with prefetch(make, start, stop, depth) as ready: ...

A batch is a function of (corpus, tokenizer, plan, seed, step), whatever the number of hosts and
devices: to resume, a run needs its step and nothing else, and a host reads only its own rows.
"""

from transformer.data.batching import Plan, Rows, Shape, plan_buckets, plan_packed
from transformer.data.pipeline import Batches, Prefetch, in_order, prefetch
from transformer.data.sources import SOURCES, CasaRoja, Corpus, Text, Tfds
from transformer.data.store import Store, open_store, store_key
from transformer.data.tokenizers import BOS, EOS, PAD, UNK, Tokenizer

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "SOURCES",
    "UNK",
    "Batches",
    "CasaRoja",
    "Corpus",
    "Plan",
    "Prefetch",
    "Rows",
    "Shape",
    "Store",
    "Text",
    "Tfds",
    "Tokenizer",
    "in_order",
    "open_store",
    "plan_buckets",
    "plan_packed",
    "prefetch",
    "store_key",
]
