"""An experiment's configuration made into its parts: mesh, model, corpus, tokenizer, batches.

A run's directory holds all that is needed to understand and repeat the run:

    config.json        the resolved configuration            checkpoints/   by step (training)
    environment.json   versions, flags, machine              metrics.jsonl  (training/metrics.py)
    tokenizer.model    SentencePiece, trained on the corpus  tensorboard/   the same numbers
    evaluation.json    scores (evaluation)
"""

import dataclasses
import json
import logging
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from transformer import distributed, runtime
from transformer.config import Config, from_dict
from transformer.data import (
    SOURCES,
    Batches,
    Corpus,
    Plan,
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

# What may differ when a run goes on: where it runs, how long, what it shows, how it decodes.
MAY_CHANGE = (
    "name",
    "distributed",
    "mesh",
    "decoding",
    "checkpoints",
    "early_stopping.patience",
    "training.steps",
    "training.minutes",
    "training.log_every",
    "training.eval_samples",
    "data.prefetch",
    "data.cache_dir",
    "data.tfds.data_dir",
)


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
        return cls(from_dict(_merge(read_config(workdir), changes)), workdir)

    def claim(self) -> None:
        """Makes the run directory this experiment's, or checks that it is.

        Raises:
            UserError: it holds a run of another configuration; says which keys differ.
        """
        distributed.first_then_all("claim", self._claim)

    def _claim(self) -> None:
        path, mine = self.workdir / "config.json", self.config.as_dict()
        if path.exists() and any(self.workdir.glob("checkpoints/*")):
            theirs = read_config(self.workdir)
            differ = [key for key in _differences(mine, theirs) if not _may_change(key)]
            if differ:
                shown = "; ".join(
                    f"{key} is {_get(mine, key)!r} here, {_get(theirs, key)!r} there"
                    for key in differ[:4]
                )
                raise UserError(
                    f"{self.workdir} holds a run of another configuration ({shown}"
                    f"{'; ...' if len(differ) > 4 else ''}): take another --workdir"
                )
        elif path.exists():  # it never came to a checkpoint: nothing is lost by starting anew
            for made in ("tokenizer.model", "metrics.jsonl"):
                (self.workdir / made).unlink(missing_ok=True)
        elif self.workdir.exists() and (not self.workdir.is_dir() or any(self.workdir.iterdir())):
            raise UserError(
                f"{self.workdir} exists and is no run directory (no config.json): "
                "take another --workdir"
            )
        self.workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, mine)
        write_json(self.workdir / "environment.json", runtime.describe())

    @cached_property
    def layout(self) -> Layout:
        """The mesh and its rules; refuses a mesh that does not divide the batches' rows."""
        layout = Layout(dataclasses.asdict(self.config.mesh), self.config.sharding.rules)
        self._divides(layout, "batch", "data.row_multiple", self.config.data.row_multiple)
        self._divides(layout, "length", "data.length_multiple", self.config.data.length_multiple)
        return layout

    def _divides(self, layout: Layout, axis: str, key: str, multiple: int) -> None:
        parts = self.config.training.accumulate if axis == "batch" else 1
        split = layout.split(axis)
        if multiple % (split * parts):
            pieces = f" in each of training.accumulate = {parts} parts" if parts > 1 else ""
            raise UserError(
                f"the mesh splits {axis!r} over {split} devices{pieces}, which does not divide "
                f"{key} = {multiple}: set {key} to a multiple of {split * parts}, or the mesh to "
                f"axes of sizes that divide {multiple // parts}"
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
            options = dataclasses.asdict(self.config.data.tokenizer)
            tokenizers.train(self.corpus.pairs("train"), path, **options)

    def store(self, split: str) -> Store:
        """A split of the corpus as tokens, from the cache where it is there."""
        return open_store(
            runtime.cache_dir(self.config.data.cache_dir) / "tokens",
            lambda: self.corpus.pairs(split),
            self.tokenizer,
            key=store_key(self.corpus.fingerprint(split), self.tokenizer.fingerprint),
        )

    @cached_property
    def train_batches(self) -> Batches:
        """Step → batch, from step 0 on without end."""
        tokens = self.store("train")
        plan = self._plan(tokens, self.config.data.max_length)
        if plan.left_out:
            log.warning(
                "left out %s of %s training pairs, longer than data.max_length = %s tokens",
                *(f"{plan.left_out:,}", f"{len(tokens):,}", self.config.data.max_length),
            )
        return Batches(tokens, plan, self.config.seed)

    def eval_batches(self, split: str) -> Batches:
        """Steps 0 to `plan.batches_per_epoch`: every example of a split once, however long."""
        tokens = self.store(split)
        return in_order(tokens, self._plan(tokens, int(tokens.lengths.max())))

    def _plan(self, tokens: Store, max_length: int) -> Plan:
        data = self.config.data
        common = {
            "tokens_per_batch": data.tokens_per_batch,
            "max_length": max_length,
            "row_multiple": data.row_multiple,
        }
        if data.batching == "packed":
            return plan_packed(tokens.lengths, packed_length=data.packed_length, **common)
        return plan_buckets(
            tokens.lengths, shapes=data.shapes, length_multiple=data.length_multiple, **common
        )


def read_config(workdir: Path) -> dict[str, Any]:
    """The resolved configuration that a run directory holds.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = workdir / "config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{workdir} holds no run (no config.json): give the --workdir of `transformer train`"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or train anew") from error


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _merge(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for key, value in changes.items():
        merged[key] = _merge(tree[key], value) if isinstance(value, dict) else value
    return merged


def _differences(a: dict[str, Any], b: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key in sorted({*a, *b}):
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            found += _differences(x, y, f"{path}{key}.")
        elif x != y:
            found.append(path + key)
    return found


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith(name + ".") for name in MAY_CHANGE)


def _get(tree: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None  # pyright: ignore
    return tree
