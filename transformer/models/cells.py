"""One position of a recurrent layer: what a cell does with its input, its state and their gates.

Products are made outside: `x` is the input's share of the gates, of all positions at once, `r` the
state's, of this position. What is left here is elementwise, in float32.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Gates = Float[Array, "*rows Z R"]
State = tuple[Float[Array, "*rows R"], ...]  # the first is the output, h


@dataclass(frozen=True)
class Cell:
    """Attributes:
    gates: Z, how many blocks of width R the products give.
    states: how many arrays of width R pass from one position to the next.
    forget: which gate's bias begins at 1, so that a state lasts (Jozefowicz et al. 2015).
    inner_bias: which gate has a bias of its own on the state's share.
    advance: (x, r, state) -> state.
    """

    gates: int
    states: int
    advance: Callable[[Gates, Gates, State], State]
    forget: int | None = None
    inner_bias: int | None = None


def _rnn(x: Gates, r: Gates, state: State) -> State:
    """h' = tanh(x + r) (Elman 1990)."""
    return (jnp.tanh(x + r)[..., 0, :],)


def _gru(x: Gates, r: Gates, state: State) -> State:
    """Gates reset, update, new (Cho et al. 2014), the reset gate after the product (as cuDNN does).

    n = tanh(xₙ + reset ⊙ rₙ);  h' = (1 - update) ⊙ n + update ⊙ h
    """
    (h,) = state
    gates = jax.nn.sigmoid(x[..., :2, :] + r[..., :2, :])
    reset, update = gates[..., 0, :], gates[..., 1, :]
    new = jnp.tanh(x[..., 2, :] + reset * r[..., 2, :])
    return (new + update * (h - new),)


def _lstm(x: Gates, r: Gates, state: State) -> State:
    """Gates input, forget, output, new (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    c' = forget ⊙ c + input ⊙ tanh(new);  h' = output ⊙ tanh(c')
    """
    _, c = state
    z = x + r
    gates = jax.nn.sigmoid(z[..., :3, :])
    c = gates[..., 1, :] * c + gates[..., 0, :] * jnp.tanh(z[..., 3, :])
    return gates[..., 2, :] * jnp.tanh(c), c


CELLS = {
    "rnn": Cell(1, 1, _rnn),
    "gru": Cell(3, 1, _gru, inner_bias=2),
    "lstm": Cell(4, 2, _lstm, forget=1),
}
