"""`transformer train` whose gradients are NaN for one batch: the one with this sum of source ids.

python tests/support/faulty.py SUM train --config=...
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp

from transformer.__main__ import main
from transformer.training import step

WHICH = int(sys.argv.pop(1))
real = step.gradients


def gradients(model: Any, state: Any, batch: Any, *rest: Any) -> Any:
    grads, sums = real(model, state, batch, *rest)
    fault = jnp.where(batch.source.ids.sum() == WHICH, jnp.nan, 0.0)
    return jax.tree.map(lambda g: g + fault, grads), sums


if __name__ == "__main__":
    step.gradients = gradients
    main()
