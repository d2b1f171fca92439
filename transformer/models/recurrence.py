"""A loop over positions that computes the gradients of its weights after the loop, not in it.

Differentiated as it stands, `jax.lax.scan` adds to the gradient of every weight at every position:
T small products, T sums as large as the weight and, where rows are split over devices, T reductions
between them. Here the loop backwards does only what the recurrence needs, no product a second
time, and one large product over all positions then gives the gradient of each weight.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

Product = Callable[[str, Array], Array]
Specs = tuple[tuple[str, str], ...]


class Weight(NamedTuple):
    """What an operand is multiplied by, and what is added: of the result's last axes."""

    kernel: Array
    bias: Array | None = None


class Step(NamedTuple):
    """What the body of a recurrence is given at one position.

    Attributes:
        x: of this position, differentiable; a pytree.
        flags: of this position, not differentiable.
        constants: the same at every position, differentiable; gradients add up in the loop.
        fixed: the same at every position, not differentiable.
    """

    x: Any
    flags: Any = ()
    constants: Any = ()
    fixed: Any = ()


Body = Callable[[Product, Any, Step], tuple[Any, Any]]  # (product, carry, step) -> (carry, y)


def multiply(specs: Mapping[str, str], weights: Mapping[str, Weight]) -> Product:
    """The plain `product`: of an operand with the weight of a name."""

    def product(name: str, operand: Array) -> Array:
        kernel, bias = weights[name]
        result = jnp.einsum(specs[name], operand, kernel)
        return result if bias is None else result + jnp.broadcast_to(bias, result.shape)

    return product


def recur(
    body: Body,
    specs: Mapping[str, str],
    weights: Mapping[str, Weight],
    init: Any,
    steps: Step,
    *,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Any, Any]:
    """`jax.lax.scan` of `body`, which multiplies by its weights with `product(name, operand)`.

    Args:
        body: closes over no array, and calls each product once.
        specs: an einsum of two operands for each weight, the weight the second: "BR,RQ->BQ".
        weights: by the same names. A kernel may have B as an axis (keys, values of attention).
        init: the carry before the first position.
        steps: leaves of `x` and `flags` have T as their first axis.
        reverse: from the last position to the first.
        unroll: positions in one turn of the loop.

    Returns:
        The last carry, and the ys, stacked along T.
    """
    return _recur(
        body, tuple(specs.items()), reverse, unroll, dict(weights), init, *_arguments(steps)
    )


def _arguments(steps: Step) -> tuple[Any, Any, Any, Any]:
    return steps.x, steps.flags, steps.constants, steps.fixed


def _recur(body, specs, reverse, unroll, weights, init, xs, flags, constants, fixed):
    product = multiply(dict(specs), weights)

    def step(carry, at):
        return body(product, carry, Step(at[0], at[1], constants, fixed))

    return jax.lax.scan(step, init, (xs, flags), reverse=reverse, unroll=unroll)


def _forward(body, specs, reverse, unroll, weights, init, xs, flags, constants, fixed):
    plain = multiply(dict(specs), weights)

    def step(carry, at):
        results = {}

        def product(name, operand):
            assert name not in results, f"product {name!r} is asked for twice"
            results[name] = plain(name, operand)
            return results[name]

        after, y = body(product, carry, Step(at[0], at[1], constants, fixed))
        return after, (y, (carry, results))

    scanned = jax.lax.scan(step, init, (xs, flags), reverse=reverse, unroll=unroll)
    last, (ys, saved) = scanned
    return (last, ys), (saved, weights, xs, flags, constants, fixed)


def _backward(body, specs, reverse, unroll, residuals, cotangents):
    saved, weights, xs, flags, constants, fixed = residuals
    dlast, dys = cotangents
    to_operand, to_weight = _transposed(specs)

    def step(sums, at):
        (dcarry, dconstants), (x, flag, (carry, results), dy) = sums, at

        def function(carry, x, constants, taps):
            operands = {}

            def product(name, operand):
                operands[name] = operand
                back = lambda d: jnp.einsum(to_operand[name], d, weights[name].kernel)  # noqa: E731
                return _saved(back, operand, results[name], taps[name])

            return body(product, carry, Step(x, flag, constants, fixed)), operands

        taps = jax.tree.map(jnp.zeros_like, results)
        _, pull, operands = jax.vjp(function, carry, x, constants, taps, has_aux=True)
        dcarry, dx, dmore, dresults = pull((dcarry, dy))
        return (dcarry, jax.tree.map(jnp.add, dconstants, dmore)), (dx, dresults, operands)

    zeros = jax.tree.map(jnp.zeros_like, constants)
    at = (xs, flags, saved, dys)
    (dinit, dconstants), (dxs, dresults, operands) = jax.lax.scan(
        step, (dlast, zeros), at, reverse=not reverse, unroll=unroll
    )
    dweights = {}
    for name, (kernel, bias) in weights.items():
        d = dresults[name]
        dkernel = jnp.einsum(to_weight[name], operands[name], d).astype(kernel.dtype)
        if bias is not None:
            bias = jnp.sum(d, tuple(range(d.ndim - bias.ndim)), dtype=jnp.float32).astype(
                bias.dtype
            )
        dweights[name] = Weight(dkernel, bias)
    return dweights, dinit, dxs, None, dconstants, None


_recur = jax.custom_vjp(_recur, nondiff_argnums=(0, 1, 2, 3))
_recur.defvjp(_forward, _backward)


def _saved(back: Callable[[Array], Array], operand: Array, result: Array, tap: Array) -> Array:
    """The result of a product, known already; its cotangent goes to the operand and the tap."""

    @jax.custom_vjp
    def known(operand: Array, tap: Array) -> Array:
        return result

    known.defvjp(lambda operand, tap: (result, ()), lambda _, d: (back(d), d))
    return known(operand, tap)


def _transposed(specs: Specs) -> tuple[dict[str, str], dict[str, str]]:
    """The einsums of (cotangent, weight) -> operand, and of all positions' -> weight."""
    to_operand, to_weight = {}, {}
    for name, spec in specs:
        inputs, result = spec.split("->")
        operand, weight = inputs.split(",")
        to_operand[name] = f"{result},{weight}->{operand}"
        to_weight[name] = f"T{operand},T{result}->{weight}"
    return to_operand, to_weight
