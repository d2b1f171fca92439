"""Sequence-to-sequence Transformers in JAX and Flax, and the recurrent networks they replaced.

The dimension key. These letters name the axes of every array in this package: as suffixes in
bodies (`scores_BHTS`) and as jaxtyping annotations at borders (`Float[Array, "B T H K"]`).

    B  batch: sentences, or packed rows        K  head size of queries and keys (d_k)
    T  target or query position                U  head size of values (d_v)
    S  source or key position                  V  vocabulary
    D  model width (d_model)                   N  layers
    F  feed-forward width (d_ff)               W  beam width: hypotheses of one sentence
    H  query heads                             L  cache length: positions decoded at most
    G  key/value heads (G divides H)           C  chunks of a longer axis
    R  width of a recurrent state              Z  gates of a recurrent cell
    J  source and target as one sequence

Importing this package imports nothing heavy: the names below, and the modules of the package, load
when they are first used.
"""

import importlib
import importlib.util
from typing import Any

__version__ = "0.2.0"

_EXPORTS = {
    "attend": "transformer.attention",
    "Mask": "transformer.attention",
    "Batch": "transformer.batch",
    "Source": "transformer.batch",
    "Target": "transformer.batch",
    "Config": "transformer.config",
    "Seq2Seq": "transformer.models",
    "build_model": "transformer.models",
    "Experiment": "transformer.experiment",
    "ModelConfig": "transformer.config",
    "Callback": "transformer.training",
    "Run": "transformer.run",
    "Translator": "transformer.decoding",
    "open_run": "transformer.run",
    "train": "transformer.training",
    "UserError": "transformer.errors",
}

__all__ = sorted(_EXPORTS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}"):
        return importlib.import_module(f"{__name__}.{name}")  # transformer.config.base()
    raise AttributeError(f"module 'transformer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
