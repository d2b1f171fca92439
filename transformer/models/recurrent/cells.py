"""One position of a recurrent layer: what a cell makes of its gates and its state.

Products are made outside. What is left here is elementwise, in float32.
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
    advance: (gates, what the input gives to the gate that is apart, state) -> state.
    apart: which gate takes the input's and the state's share apart; None: all take their sum.
    forget: which gate's bias begins at 1, so that a state lasts (Jozefowicz et al. 2015).
    """

    gates: int
    states: int
    advance: Callable[[Gates, Array | None, State], State]
    apart: int | None = None
    forget: int | None = None

    def shares(self, x: Gates) -> tuple[Gates, Array | None]:
        """The input's gates as what is added to the state's, and what is kept apart."""
        if self.apart is None:
            return x, None
        return x.at[..., self.apart, :].set(0.0), x[..., self.apart, :]


def _each(gates: Gates) -> list[Array]:
    return [gate[..., 0, :] for gate in jnp.split(gates, gates.shape[-2], axis=-2)]


def _rnn(gates: Gates, _: Array | None, state: State) -> State:
    """h' = tanh(gate) (Elman 1990)."""
    return (jnp.tanh(gates[..., 0, :]),)


def _gru(gates: Gates, x: Array | None, state: State) -> State:
    """Gates reset, update, new (Cho et al. 2014), the reset gate after the product (as in cuDNN).

    n = tanh(x + reset ⊙ new);  h' = (1 - update) ⊙ n + update ⊙ h
    """
    (h,), (reset, update, new) = state, _each(gates)
    assert x is not None
    new = jnp.tanh(x + jax.nn.sigmoid(reset) * new)
    return (new + jax.nn.sigmoid(update) * (h - new),)


def _lstm(gates: Gates, _: Array | None, state: State) -> State:
    """Gates input, forget, output, new (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    c' = forget ⊙ c + input ⊙ tanh(new);  h' = output ⊙ tanh(c')
    """
    # All gates by one function: sigmoid(z) = tanh(z / 2) / 2 + 1/2.
    half = jnp.array([0.5, 0.5, 0.5, 1.0])[:, None]
    (_, c), (*halves, new) = state, _each(jnp.tanh(gates * jnp.broadcast_to(half, gates.shape)))
    enter, forget, leave = (0.5 * gate + 0.5 for gate in halves)
    c = forget * c + enter * new
    return leave * jnp.tanh(c), c


CELLS = {
    "rnn": Cell(1, 1, _rnn),
    "gru": Cell(3, 1, _gru, apart=2),
    "lstm": Cell(4, 2, _lstm, forget=1),
}
