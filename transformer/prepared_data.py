"""A run's data, prepared once: its corpus, its tokenizer, its tokens, its batches."""

import dataclasses
import functools
import logging
import operator
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from transformer import distributed, files, run_directory, runtime
from transformer.config import Config
from transformer.config.data import KINDS
from transformer.data import (
    Batches,
    Corpus,
    Masking,
    Pair,
    Portion,
    Problem,
    Same,
    Sampled,
    SentencePieceTokenizer,
    Store,
    Tokenizer,
    everything,
    in_order,
    open_corpus,
    open_store,
    own_tokenizers,
    plan_buckets,
    plan_packed,
    selection,
    shards,
    store_key,
    tokenizers,
)
from transformer.data.chunks import Chunk
from transformer.data.prepared import PreparedCorpus
from transformer.data.sides import check_sides
from transformer.data.store import find_store, open_chunks
from transformer.errors import UserError
from transformer.upstream.compilation_cache import CheckedCache

log = logging.getLogger(__name__)


class PreparedData:
    """What one configuration reads, in one run directory; each part is made when first used."""

    def __init__(self, config: Config, workdir: files.AnyPath):
        self._config, self._workdir = config, workdir
        self._fingerprints: dict[str, str] = {}

    @cached_property
    def corpus(self) -> Corpus:
        if folder := self._config.data.prepared:
            return PreparedCorpus(files.any_path(folder), self._config.data)
        return open_corpus(self._config.data)

    def check_corpus(self) -> None:
        """Refuses a corpus that lacks what training reads.

        Raises:
            UserError: its configuration is wrong, or it has no training or development set.
        """
        needed = ["train", "dev"] if self._config.training.eval_every else ["train"]
        for split in needed:
            if not self.corpus.has(split):
                raise UserError(
                    f"data.{self._config.data.source} names no {split} set: give one"
                    + (", or set training.eval_every=0" if split == "dev" else "")
                )
        if self._config.data.side == "both":
            for split in ("train", "dev", "test"):
                check_sides(self.corpus, split)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's own; trained on the training split, or adopted, where there is none yet."""
        path, options = self._workdir / "tokenizer.model", self._config.data.tokenizer
        # A run that has its tokenizer may have left its text behind.
        corpus = "" if path.exists() or options.path else self._fingerprint("train")
        distributed.first_then_all("tokenizer", lambda: self._make_tokenizer(path, corpus))
        tokenizer = own_tokenizers.load_tokenizer(options.kind, path)
        if corpus:
            self._note("train", corpus)
        if options.path and Path(options.path).exists():
            adopted = SentencePieceTokenizer(own_tokenizers.adopted(options.path))
            if adopted.fingerprint != tokenizer.fingerprint:
                raise UserError(
                    f"data.tokenizer.path={options.path} is another tokenizer than {path}, with "
                    "which this run began: leave the key out, or take another --workdir"
                )
        samples = isinstance(tokenizer, SentencePieceTokenizer) and tokenizer.can_sample
        if options.sampling and not samples:
            raise UserError(
                f"data.tokenizer.sampling is {options.sampling}, which {path} cannot do: it is "
                "neither a BPE nor a unigram model; set it to 0"
            )
        run_directory.require_same(self._workdir, "tokenizer", tokenizer.fingerprint, str(path))
        if tokenizer.size > options.vocab_size:
            raise UserError(
                f"{path} has {tokenizer.size:,} pieces, more than data.tokenizer.vocab_size = "
                f"{options.vocab_size:,}: set --config.data.tokenizer.vocab_size={tokenizer.size}"
            )
        return tokenizer

    def _make_tokenizer(self, path: files.AnyPath, corpus: str) -> None:
        if path.exists():
            return
        if run_directory.has_checkpoints(self._workdir):
            raise UserError(
                f"{path} is missing, and a new one would not fit the trained model: bring it "
                "back, or take another --workdir"
            )
        options = self._config.data.tokenizer
        if isinstance(self.corpus, PreparedCorpus):
            files.write(path, self.corpus.tokenizer())
        elif options.path:
            files.write(path, own_tokenizers.adopted(options.path))
        elif options.kind not in KINDS:
            own = own_tokenizers.train_own(options.kind, self._readable, dict(options.options))
            files.write(path, own)
        else:
            self._train_tokenizer(path, corpus)

    def _train_tokenizer(self, path: files.AnyPath, corpus: str) -> None:
        options = dataclasses.asdict(self._config.data.tokenizer)
        for key in ("sampling", "options", "path"):  # which are of encoding, or of others
            del options[key]
        # As of tokens: a corpus and its options have one tokenizer, whatever run asks for it.
        key = tokenizers.key(corpus, self._left_out, options)
        try:
            cache = CheckedCache(self._cache_dir / "tokenizers")
            model = cache.get(key)
        except OSError as error:
            raise UserError(
                f"data.cache_dir={self._cache_dir}: {error.strerror or error}; name a folder that "
                "can be written"
            ) from error
        if model is not None:
            files.write(path, model)
            return
        tokenizers.train(self._readable, path, **options)
        cache.put(key, path.read_bytes())

    @property
    def _readable(self) -> Iterator[Pair]:
        """The training pairs that a tokenizer is trained on."""
        return selection.readable(self.corpus.pairs("train"), self._left_out)

    def _fingerprint(self, split: str) -> str:
        """What the text of a split is, as this process found it first.

        Raises:
            UserError: it is not the text that this run began with.
        """
        if split not in self._fingerprints:
            self._fingerprints[split] = self.corpus.fingerprint(split)
        fingerprint = self._fingerprints[split]
        self._note(split, fingerprint, note=False)
        return fingerprint

    def _note(self, split: str, fingerprint: str, *, note: bool = True) -> None:
        """Once the text was read to its end: while it changes, none of it is this run's."""
        name = f"{split} set"
        run_directory.require_same(self._workdir, name, fingerprint, "its text", note=note)

    @property
    def _cache_dir(self) -> Path:
        return runtime.cache_dir(self._config.data.cache_dir)

    def store(self, split: str) -> Store:
        """A split of the corpus as tokens, every line of it, from the cache where it is there.

        Raises:
            UserError: the corpus is not the one that this run began with.
        """
        return self._store(split)[0]

    def _store(self, split: str) -> tuple[Store, Path]:
        """A split's store, and the folder that it lies in."""
        fingerprint = self._fingerprint(split)
        key = store_key(fingerprint, self.tokenizer.fingerprint)
        folder = self._cache_dir / "tokens" / key
        if isinstance(self.corpus, PreparedCorpus):
            chunks = functools.partial(self.corpus.chunks, split, key)
            store = self._copied(folder, chunks, self.corpus.bytes_of(split))
        elif distributed.count() > 1:
            store = self._tokenised_together(split, folder)
        else:
            store = open_store(
                folder.parent, lambda: self.corpus.pairs(split), self.tokenizer, key=key
            )
        self._note(split, fingerprint)
        return store, folder

    def _tokenised_together(self, split: str, folder: Path) -> Store:
        """A split's store, of which each of the run's processes has tokenised a part.

        The parts meet in the run's directory, which all processes see.
        """
        size, processes = self.tokenizer.size, distributed.count()
        store = find_store(folder, vocab_size=size)
        if distributed.all_true(store is not None):
            assert store is not None
            return store
        parts = self._workdir / "tokens" / folder.name
        pairs = shards.write(
            parts,
            self.corpus.pairs(split),
            self.tokenizer,
            lambda number: number % processes == distributed.index(),
        )
        count = shards.count(pairs)
        distributed.barrier("tokens")
        store = self._copied(folder, lambda: shards.read(parts, count, size), 0)
        distributed.barrier("copies of tokens")
        if distributed.is_first():
            shards.discard(parts, count)
        return store

    def _copied(self, folder: Path, chunks: Callable[[], Iterator[Chunk]], size: int) -> Store:
        """The store in a folder, made of tokens that are elsewhere; once on each disk.

        Raises:
            UserError: there is no room for as many bytes as `size`.
        """

        def chunks_with_room() -> Iterator[Chunk]:
            files.require_room(folder.parent, size, "data.cache_dir")
            return chunks()

        def copy() -> Store:
            vocab_size = self.tokenizer.size
            return open_chunks(folder, chunks_with_room, vocab_size=vocab_size, verb="copied")

        # Others on the first one's disk then find its copy.
        return distributed.first_then_all("copy of tokens", copy) or copy()

    @property
    def _left_out(self) -> Problem:
        """What training does without."""
        chosen = dataclasses.asdict(self._config.data.leave_out)
        named = (Problem[name.upper()] for name, leave_out in chosen.items() if leave_out)
        return functools.reduce(operator.or_, named, Problem.TOO_LONG | Problem.RATIO)

    @cached_property
    def train_batches(self) -> Batches:
        """Step → batch, from step 0 on without end. Writes `data_report.json`.

        Raises:
            UserError: nothing is left of the training set.
        """
        data = self._config.data
        store, folder = self._store("train")
        limit = data.max_length
        if data.batching == "packed":
            limit = min(limit, data.packed_length)
        in_training = self._kept(store, limit)
        rates = [1.0]
        if data.source == "mixture":
            rates = [data.mixture[name].rate for name in self.corpus.origins("train")]
        portions = [
            Portion(examples, rate)
            for part, rate in enumerate(rates)
            if len(examples := np.flatnonzero(in_training & (store.parts == part)))
        ]
        options: dict[str, Any] = {
            "tokens_per_batch": data.tokens_per_batch,
            "row_multiple": data.row_multiple,
        }
        if data.batching == "packed":
            plan, options["packed_length"] = plan_packed, data.packed_length
        else:
            plan = plan_buckets
            options |= {"shapes": data.shapes, "length_multiple": data.length_multiple}
        make_plan = functools.partial(plan, portions=portions, **options)
        if not data.tokenizer.sampling:
            epochs = Same(store, make_plan(store.lengths))
            return Batches(epochs, self._config.seed, masking=self._masking)
        assert isinstance(self.tokenizer, SentencePieceTokenizer)  # as `data.tokenizer` requires
        sampled = Sampled(
            store,
            self.tokenizer,
            folder.with_name(f"{folder.name}-sampled"),
            make_plan,
            plan_key=f"{options} {rates} {zlib.crc32(in_training.tobytes()):08x} {plan.__name__}",
            probability=data.tokenizer.sampling,
            seed=self._config.seed,
            max_length=limit,
        )
        return Batches(sampled, self._config.seed)

    def _kept(self, train: Store, max_length: int) -> Bool[np.ndarray, " n"]:
        """Which training pairs are trained on; says what is not, in a file and in the log."""
        others = {}
        for split in ("dev", "test"):
            if self.corpus.has(split):
                others[split] = self.store(split)
            elif self._left_out & Problem.HELD_OUT:
                # One that came later would take pairs out of a training set that is in use.
                run_directory.require_same(self._workdir, f"{split} set", "none", "its text")
        problems = selection.find_problems(
            train,
            held_out=[store.digests for store in others.values()],
            max_length=max_length,
            max_ratio=self._config.data.max_ratio,
        )
        reports = {
            "train": selection.report(
                train, self.corpus.origins("train"), problems, self._left_out, ~Problem(0)
            )
        }
        for split, store in others.items():
            origins = self.corpus.origins(split)
            reports[split] = selection.report(store, origins, store.problems, Problem(0))
        path = self._workdir / "data_report.json"
        if distributed.is_first():
            files.write_json(path, reports)
        in_training = (problems & self._left_out) == 0
        summary = f"{selection.summary(problems, self._left_out)}: see {path}"
        if not in_training.any():
            raise UserError(
                f"{summary}; mend the text, or loosen data.leave_out, data.max_length or "
                "data.max_ratio"
            )
        if not in_training.all():
            log.warning("%s", summary)
        return in_training

    def store_of(self, corpus: Corpus, split: str) -> Store:
        """A split of a corpus that is not the run's, as tokens."""
        key = store_key(corpus.fingerprint(split), self.tokenizer.fingerprint)
        folder = self._cache_dir / "tokens"
        return open_store(folder, lambda: corpus.pairs(split), self.tokenizer, key=key)

    def eval_batches(self, tokens: Store, row_multiple: int) -> Batches:
        """Steps 0 to `plan.batches_per_epoch`: every example once, however long."""
        data = self._config.data
        longest = int(tokens.lengths.max())
        longest += -longest % data.length_multiple
        plan = plan_buckets(
            tokens.lengths,
            everything(tokens.lengths),
            tokens_per_batch=max(data.tokens_per_batch, longest * row_multiple),
            shapes=data.shapes,
            row_multiple=row_multiple,
            length_multiple=data.length_multiple,
        )
        return in_order(tokens, plan, self._masking)

    @property
    def _masking(self) -> Masking | None:
        if not self._config.data.masked:
            return None
        return Masking(self._config.data.masked, self._config.seed, self.tokenizer.size)
