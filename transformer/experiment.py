"""An experiment's configuration made into its parts: mesh, model, corpus, tokenizer, batches."""

import contextlib
import dataclasses
import logging
import math
import os
from functools import cached_property
from typing import Any

from transformer import distributed, files, run_directory
from transformer.config import Config, from_dict
from transformer.data import Batches, Corpus, Store, Tokenizer
from transformer.errors import UserError
from transformer.models import Seq2Seq, build_model, parameters
from transformer.nested import merged
from transformer.prepared_data import PreparedData
from transformer.sharding import Layout
from transformer.storage import BucketPath

log = logging.getLogger(__name__)

ROWS = 64  # of the tables of pieces: a multiple that a mesh can split
ROWS_KEY = "vocab_size"  # of the model, among what a run has chosen


class Experiment:
    """One configuration in one run directory. Each part is made when it is first asked for."""

    def __init__(self, config: Config, workdir: str | os.PathLike[str]):
        self.config = config
        self.workdir = files.any_path(os.fspath(workdir))
        if isinstance(self.workdir, BucketPath) and self.workdir.root.address.scheme == "s3":
            raise UserError(
                f"{self.workdir}: Orbax reads and writes no arrays there: train in a folder of a "
                "disk or in gs://; `transformer copy` moves a run to s3:// and back"
            )

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
        folder = files.any_path(os.fspath(workdir))
        tree = run_directory.read_config(folder)
        try:
            from_dict(tree)
        except UserError as error:
            raise UserError(
                f"{folder}/config.json is damaged, or another version's ({error}): restore it, or "
                "use the version that wrote it"
            ) from error
        return cls(from_dict(merged(tree, changes)), folder)

    def acquire(self) -> contextlib.AbstractContextManager[None]:
        """Makes the run directory this experiment's, and holds it; see `run_directory.acquire`."""
        return run_directory.acquire(self.workdir, self.config)

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
            axis, microbatches, each = "length", 1, ""
            if name == "row_multiple":
                axis, microbatches = "row", self.config.training.accumulate
            key = f"data.{name}"
            multiple = getattr(self.config.data, name)
            split = self.layout.split("batch" if axis == "row" else "length")
            if microbatches > 1:
                each = f" in each of training.accumulate = {microbatches} microbatches"
            least = split * microbatches
            if multiple % least:
                raise UserError(
                    f"the mesh splits {axis}s over {split} devices{each}, which does not divide "
                    f"{key} = {multiple}: set {key} to a multiple of {least}, or the mesh "
                    f"so that it splits them over a divisor of {multiple // microbatches}"
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
    def data(self) -> PreparedData:
        """The corpus, tokenizer, tokens and batches."""
        return PreparedData(self.config, self.workdir)

    @property
    def corpus(self) -> Corpus:
        return self.data.corpus

    @property
    def tokenizer(self) -> Tokenizer:
        return self.data.tokenizer

    @property
    def train_batches(self) -> Batches:
        """Step → batch, from step 0 on without end."""
        return self.data.train_batches

    def eval_batches(self, store: Store) -> Batches:
        """Every example of a split once, in batches that this mesh divides."""
        return self.data.eval_batches(store, self.row_multiple)

    def store(self, split: str) -> Store:
        """A split of the corpus as tokens, every line of it."""
        return self.data.store(split)

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
