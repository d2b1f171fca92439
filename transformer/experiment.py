"""An experiment's configuration made into its parts: mesh, model, corpus, tokenizer, batches."""

import contextlib
import dataclasses
import functools
import logging
import math
import operator
import os
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from transformer import distributed, files, run_directory, runtime
from transformer.config import Config, DataConfig, PartConfig, from_dict
from transformer.data import (
    SOURCES,
    Batches,
    Corpus,
    Masking,
    Mixture,
    OneSide,
    Portion,
    Problem,
    Same,
    Sampled,
    Store,
    Tokenizer,
    everything,
    in_order,
    open_store,
    plan_buckets,
    plan_packed,
    selection,
    store_key,
    tokenizers,
)
from transformer.data.sides import check_sides
from transformer.errors import UserError
from transformer.models import Seq2Seq, build_model, parameters
from transformer.nested import merged
from transformer.sharding import Layout
from transformer.upstream.compilation_cache import CheckedCache

log = logging.getLogger(__name__)

ROWS = 64  # of the tables of pieces: a multiple that a mesh can split
ROWS_KEY = "vocab_size"  # of the model, among what a run has chosen


class Experiment:
    """One configuration in one run directory. Each part is made when it is first asked for."""

    def __init__(self, config: Config, workdir: str | os.PathLike[str]):
        self.config = config
        self.workdir = files.local_path(workdir)
        self._fingerprints: dict[str, str] = {}

    @classmethod
    def open(cls, workdir: str | os.PathLike[str], **changes: Any) -> "Experiment":
        """The experiment of an existing run directory.

        Args:
            workdir: what `transformer train --workdir` was given.
            changes: configuration keys to change, as nested mappings (`decoding={"beam": 1}`).

        Raises:
            UserError: there is no run in that directory, its configuration is damaged, or a change
                cannot work.
        """
        folder = files.local_path(workdir)
        tree = run_directory.read_config(folder)
        try:
            from_dict(tree)
        except UserError as error:
            raise UserError(
                f"{folder}/config.json is damaged, or another version's ({error}): restore it, or "
                "use the version that wrote it"
            ) from error
        return cls(from_dict(merged(tree, changes)), folder)

    def claim(self) -> contextlib.AbstractContextManager[None]:
        """Makes the run directory this experiment's, and holds it; see `run_directory.claim`."""
        return run_directory.claim(self.workdir, self.config)

    @cached_property
    def layout(self) -> Layout:
        """The mesh and the rules that say what is split over it."""
        return Layout(dataclasses.asdict(self.config.mesh), self.config.sharding.rules)

    @cached_property
    def sentence_layout(self) -> Layout:
        """The layout for decoding and inspection: the same mesh, lengths whole."""
        return self.layout.whole("length")

    @property
    def row_multiple(self) -> int:
        """What rows of batches for evaluation and decoding are a multiple of, on this mesh."""
        return math.lcm(self.config.data.row_multiple, self.layout.split("batch"))

    def check_mesh(self) -> None:
        """Refuses a mesh that does not divide training's batches, naming one that does.

        Raises:
            UserError: data.row_multiple, or what lengths are multiples of, is none of the split.
        """
        lengths = ["length_multiple"]  # which development batches have even where rows are packed
        if self.config.data.batching == "packed":
            lengths.append("packed_length")
        for name in ("row_multiple", *lengths):
            axis, parts = "length", 1
            if name == "row_multiple":
                axis, parts = "row", self.config.training.accumulate
            key = f"data.{name}"
            multiple = getattr(self.config.data, name)
            split = self.layout.split("batch" if axis == "row" else "length")
            if multiple % (split * parts):
                pieces = f" in each of training.accumulate = {parts} parts" if parts > 1 else ""
                raise UserError(
                    f"the mesh splits {axis}s over {split} devices{pieces}, which does not divide "
                    f"{key} = {multiple}: set {key} to a multiple of {split * parts}, or the mesh "
                    f"so that it splits them over a divisor of {multiple // parts}"
                )

    @cached_property
    def model(self) -> Seq2Seq:
        model = build_model(dataclasses.replace(self.config.model, vocab_size=self._rows))
        if self.config.data.batching == "packed" and not model.takes_packed_rows:
            raise UserError(
                f"model.family={self.config.model.family} takes one sentence a row: set "
                "data.batching=buckets"
            )
        return model

    @property
    def _rows(self) -> int:
        """The rows of the tables of pieces: as the run chose, or as many as were asked for."""
        most = self.config.model.vocab_size
        rows = run_directory.chosen(self.workdir).get(ROWS_KEY, most)
        if type(rows) is not int or not 0 < rows <= most:
            raise UserError(
                f"{self.workdir}/{run_directory.CHOICES} says that {ROWS_KEY} is {rows!r}, which "
                "was not written there: bring it back, or take another --workdir"
            )
        return rows

    @cached_property
    def abstract_params(self) -> Any:
        """The parameters' shapes and shardings on this mesh."""
        return parameters.abstract(self.model, self.layout)

    @cached_property
    def corpus(self) -> Corpus:
        data = self.config.data
        if data.source == "mixture":
            corpus = Mixture({name: _corpus(part) for name, part in data.mixture.items()})
        else:
            corpus = _corpus(data)
        return corpus if data.side == "both" else OneSide(corpus, data.side)

    def check_corpus(self) -> None:
        """Refuses a corpus that lacks what training reads.

        Raises:
            UserError: its configuration is wrong, or it has no training or development set.
        """
        needed = ["train", "dev"] if self.config.training.eval_every else ["train"]
        for split in needed:
            if not self.corpus.has(split):
                raise UserError(
                    f"data.{self.config.data.source} names no {split} set: give one"
                    + (", or set training.eval_every=0" if split == "dev" else "")
                )
        if self.config.data.side == "both":
            for split in ("train", "dev", "test"):
                check_sides(self.corpus, split)

    def fit_vocabulary(self) -> bool:
        """Makes the model of a new run as large as its tokenizer; whether it is another model now.

        Where the text supports fewer pieces than were asked for, nothing could reach the other
        rows of its tables. A run that has checkpoints keeps the rows that it has.
        """
        size, most = self.tokenizer.size, self.config.model.vocab_size
        enough = size + -size % math.lcm(ROWS, self.layout.split("vocab"))
        if enough >= most:
            return False
        begun = run_directory.has_checkpoints(self.workdir)
        rows = run_directory.choose(self.workdir, ROWS_KEY, lambda: most if begun else enough)
        if distributed.is_first():
            log.warning(
                "the tokenizer has %s pieces, for the text supports no more: the model has %s rows "
                "for them%s",
                *(f"{size:,}", f"{rows:,}"),
                ", as it had from the start" if rows == most else f", not {most:,}",
            )
        if rows == self.model.config.vocab_size:
            return False
        for part in ("model", "abstract_params"):
            vars(self).pop(part, None)
        return True

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's own; trained on the training split where the directory has none yet."""
        path = self.workdir / "tokenizer.model"
        # A run that has its tokenizer may have left its text behind.
        corpus = "" if path.exists() else self._fingerprint("train")
        distributed.first_then_all("tokenizer", lambda: self._train_tokenizer(path, corpus))
        tokenizer = Tokenizer.load(path)
        if corpus:
            self._note("train", corpus)
        run_directory.require_same(self.workdir, "tokenizer", tokenizer.fingerprint, str(path))
        return tokenizer

    def _train_tokenizer(self, path: Path, corpus: str) -> None:
        if not path.exists():
            if run_directory.has_checkpoints(self.workdir):
                raise UserError(
                    f"{path} is missing, and a new one would not fit the trained model: bring it "
                    "back, or take another --workdir"
                )
            options = dataclasses.asdict(self.config.data.tokenizer)
            del options["sampling"]  # which is of encoding
            # As of tokens: a corpus and its options have one tokenizer, whatever run asks for it.
            key = tokenizers.key(corpus, self._left_out, options)
            try:
                cache = CheckedCache(self._cache_dir / "tokenizers")
                model = cache.get(key)
            except OSError as error:
                raise UserError(
                    f"data.cache_dir={self._cache_dir}: {error.strerror or error}; name a folder "
                    "that can be written"
                ) from error
            if model is not None:
                files.write(path, model)
                return
            pairs = selection.readable(self.corpus.pairs("train"), self._left_out)
            tokenizers.train(pairs, path, **options)
            cache.put(key, path.read_bytes())

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
        run_directory.require_same(self.workdir, name, fingerprint, "its text", note=note)

    @property
    def _cache_dir(self) -> Path:
        return runtime.cache_dir(self.config.data.cache_dir)

    def store(self, split: str) -> Store:
        """A split of the corpus as tokens, every line of it, from the cache where it is there.

        Raises:
            UserError: the corpus is not the one that this run began with.
        """
        return self._store(split)[0]

    def _store(self, split: str) -> tuple[Store, Path]:
        """A split's store, and the folder that it lies in."""
        fingerprint = self._fingerprint(split)
        folder = self._cache_dir / "tokens"
        key = store_key(fingerprint, self.tokenizer.fingerprint)
        store = open_store(folder, lambda: self.corpus.pairs(split), self.tokenizer, key=key)
        self._note(split, fingerprint)
        return store, folder / key

    @property
    def _left_out(self) -> Problem:
        """What training does without."""
        chosen = dataclasses.asdict(self.config.data.leave_out)
        named = (Problem[name.upper()] for name, leave_out in chosen.items() if leave_out)
        return functools.reduce(operator.or_, named, Problem.TOO_LONG | Problem.RATIO)

    @cached_property
    def train_batches(self) -> Batches:
        """Step → batch, from step 0 on without end. Writes `data_report.json`.

        Raises:
            UserError: nothing is left of the training set.
        """
        data = self.config.data
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
            return Batches(epochs, self.config.seed, masking=self._masking)
        sampled = Sampled(
            store,
            self.tokenizer,
            folder.with_name(f"{folder.name}-sampled"),
            make_plan,
            plan_key=f"{options} {rates} {zlib.crc32(in_training.tobytes()):08x} {plan.__name__}",
            probability=data.tokenizer.sampling,
            seed=self.config.seed,
            max_length=limit,
        )
        return Batches(sampled, self.config.seed)

    def _kept(self, train: Store, max_length: int) -> Bool[np.ndarray, " n"]:
        """Which training pairs are trained on; says what is not, in a file and in the log."""
        others = {}
        for split in ("dev", "test"):
            if self.corpus.has(split):
                others[split] = self.store(split)
            elif self._left_out & Problem.HELD_OUT:
                # One that came later would take pairs out of a training set that is in use.
                run_directory.require_same(self.workdir, f"{split} set", "none", "its text")
        problems = selection.find_problems(
            train,
            held_out=[store.digests for store in others.values()],
            max_length=max_length,
            max_ratio=self.config.data.max_ratio,
        )
        reports = {
            "train": selection.report(
                train, self.corpus.origins("train"), problems, self._left_out, ~Problem(0)
            )
        }
        for split, store in others.items():
            origins = self.corpus.origins(split)
            reports[split] = selection.report(store, origins, store.problems, Problem(0))
        path = self.workdir / "data_report.json"
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

    def eval_batches(self, split: str) -> Batches:
        """Steps 0 to `plan.batches_per_epoch`: every example of a split once, however long."""
        data, tokens = self.config.data, self.store(split)
        longest = int(tokens.lengths.max())
        longest += -longest % data.length_multiple
        plan = plan_buckets(
            tokens.lengths,
            everything(tokens.lengths),
            tokens_per_batch=max(data.tokens_per_batch, longest * self.row_multiple),
            shapes=data.shapes,
            row_multiple=self.row_multiple,
            length_multiple=data.length_multiple,
        )
        return in_order(tokens, plan, self._masking)

    @property
    def _masking(self) -> Masking | None:
        if not self.config.data.masked:
            return None
        return Masking(self.config.data.masked, self.config.seed, self.tokenizer.size)


def _corpus(config: DataConfig | PartConfig) -> Corpus:
    """Makes the corpus that a section of the configuration names."""
    return SOURCES[config.source](**dataclasses.asdict(getattr(config, config.source)))
