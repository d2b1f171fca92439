"""An experiment's configuration made into its parts: mesh, model, corpus, tokenizer, batches."""

import contextlib
import dataclasses
import logging
import math
from functools import cached_property
from pathlib import Path
from typing import Any

from transformer import distributed, run_directory, runtime
from transformer.config import Config, from_dict
from transformer.data import (
    SOURCES,
    Batches,
    Corpus,
    Store,
    Tokenizer,
    in_order,
    open_store,
    plan_buckets,
    plan_packed,
    store_key,
    tokenizers,
)
from transformer.errors import UserError
from transformer.models import Seq2Seq, build_model, parameters
from transformer.sharding import Layout

log = logging.getLogger(__name__)


class Experiment:
    """One configuration in one run directory. Each part is made when it is first asked for."""

    def __init__(self, config: Config, workdir: Path):
        self.config = config
        self.workdir = workdir

    @classmethod
    def open(cls, workdir: Path, **changes: Any) -> "Experiment":
        """The experiment of an existing run directory.

        Args:
            workdir: what `transformer train --workdir` was given.
            changes: configuration keys to change, as nested mappings (`decoding={"beam": 1}`).

        Raises:
            UserError: there is no run in that directory, or its configuration is damaged.
        """
        try:
            return cls(from_dict(_merge(run_directory.read_config(workdir), changes)), workdir)
        except (KeyError, TypeError) as error:
            raise UserError(f"{workdir}/config.json is damaged ({error!r}): restore it") from error
        except UserError as error:
            if not (workdir / "config.json").exists():
                raise
            raise UserError(f"{workdir}/config.json: {error}") from error

    def claim(self) -> contextlib.AbstractContextManager[None]:
        """Makes the run directory this experiment's, and holds it; see `run_directory.claim`."""
        return run_directory.claim(self.workdir, self.config)

    @cached_property
    def layout(self) -> Layout:
        """The mesh and the rules that say what is split over it."""
        return Layout(dataclasses.asdict(self.config.mesh), self.config.sharding.rules)

    @cached_property
    def sentence_layout(self) -> Layout:
        """The same mesh for decoding and inspection, where lengths stay whole."""
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
        return build_model(self.config.model)

    @cached_property
    def abstract_params(self) -> Any:
        """The parameters' shapes and shardings on this mesh."""
        return parameters.abstract(self.model, self.layout)

    @cached_property
    def corpus(self) -> Corpus:
        data = self.config.data
        if data.source not in SOURCES:
            raise UserError(f"data.source is {data.source!r}; choose one of {', '.join(SOURCES)}")
        options = dataclasses.asdict(getattr(data, data.source))
        return SOURCES[data.source](**options, on_bad_line=data.on_bad_line)

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

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's own; trained on the training split where the directory has none yet."""
        path = self.workdir / "tokenizer.model"
        distributed.first_then_all("tokenizer", lambda: self._train_tokenizer(path))
        return Tokenizer.load(path)

    def _train_tokenizer(self, path: Path) -> None:
        if not path.exists():
            if run_directory.has_checkpoints(self.workdir):
                raise UserError(
                    f"{path} is missing, and a new one would not fit the trained model: bring it "
                    "back, or take another --workdir"
                )
            options = dataclasses.asdict(self.config.data.tokenizer)
            tokenizers.train(self.corpus.pairs("train"), path, **options)

    def store(self, split: str) -> Store:
        """A split of the corpus as tokens, from the cache where it is there.

        Raises:
            UserError: the corpus is not the one that this run began with.
        """
        fingerprint = self.corpus.fingerprint(split)
        run_directory.require_same_corpus(self.workdir, split, fingerprint)
        return open_store(
            runtime.cache_dir(self.config.data.cache_dir) / "tokens",
            lambda: self.corpus.pairs(split),
            self.tokenizer,
            key=store_key(fingerprint, self.tokenizer.fingerprint),
        )

    @cached_property
    def train_batches(self) -> Batches:
        """Step → batch, from step 0 on without end."""
        tokens = self.store("train")
        data = self.config.data
        common = {
            "tokens_per_batch": data.tokens_per_batch,
            "max_length": data.max_length,
            "row_multiple": data.row_multiple,
        }
        if data.batching == "packed":
            plan = plan_packed(tokens.lengths, packed_length=data.packed_length, **common)
        else:
            plan = plan_buckets(
                tokens.lengths, shapes=data.shapes, length_multiple=data.length_multiple, **common
            )
        if plan.left_out:
            log.warning(
                "left out %s of %s training pairs, longer than data.max_length = %s tokens",
                *(f"{plan.left_out:,}", f"{len(tokens):,}", data.max_length),
            )
        return Batches(tokens, plan, self.config.seed)

    def eval_batches(self, split: str) -> Batches:
        """Steps 0 to `plan.batches_per_epoch`: every example of a split once, however long."""
        data, tokens = self.config.data, self.store(split)
        longest = int(tokens.lengths.max())
        longest += -longest % data.length_multiple
        plan = plan_buckets(
            tokens.lengths,
            tokens_per_batch=max(data.tokens_per_batch, longest * self.row_multiple),
            max_length=longest,
            shapes=data.shapes,
            row_multiple=self.row_multiple,
            length_multiple=data.length_multiple,
        )
        return in_order(tokens, plan)


def _merge(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in changes.items():
        merged[key] = _merge(tree[key], value) if isinstance(value, dict) else value
    return merged
