"""A loop over positions that computes the gradients of its weights after the loop, not in it.

Differentiated as it stands, `jax.lax.scan` adds to the gradient of every weight at every position:
T small products, T sums as large as the weight and, where rows are split over devices, T reductions
between them. Here the loop backwards does only what the recurrence needs, no product a second
time, and one large product over all positions then gives the gradient of each weight.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from transformer.models.products import contract, letters_of

Product = Callable[[str, Array], Array]


class Weight(NamedTuple):
    """What an operand is multiplied by, and what is added: of the result's last axes."""

    kernel: Array
    bias: Array | None = None


class Step(NamedTuple):
    """What the body of a recurrence is given at one position.

    Attributes:
        x: of this position, differentiable; a pytree.
        added: of this position, to the product of the same name: costs nothing backwards.
        flags: of this position, not differentiable.
        constants: the same at every position, differentiable; gradients add up in the loop.
        fixed: the same at every position, not differentiable.
    """

    x: Any = ()
    added: Mapping[str, Array] = {}
    flags: Any = ()
    constants: Any = ()
    fixed: Any = ()


Body = Callable[[Product, Any, Step], tuple[Any, Any]]  # (product, carry, step) -> (carry, y)


def multiply(
    specs: Mapping[str, str],
    weights: Mapping[str, Weight],
    added: Mapping[str, Array | None] = MappingProxyType({}),
) -> Product:
    """The plain `product`: of an operand with the weight of a name, and what is added to it."""

    def product(name: str, operand: Array) -> Array:
        kernel, bias = weights[name]
        result = contract(specs[name], operand, kernel)
        if bias is not None:
            result = result + jnp.broadcast_to(bias, result.shape)
        more = added.get(name)
        return result if more is None else result + more

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
        steps: leaves of `x`, `added` and `flags` have T as their first axis.
        reverse: from the last position to the first.
        unroll: positions in one turn of the loop.

    Returns:
        The last carry, and the ys, stacked along T.
    """
    static = body, tuple(specs.items()), reverse, unroll
    each, same = (steps.x, dict(steps.added)), (steps.constants, steps.fixed)
    return _recur(*static, dict(weights), init, each, steps.flags, *same)


def _recur(body, specs, reverse, unroll, weights, init, each, flags, constants, fixed):
    def step(carry, at):
        (x, added), flag = at
        here = Step(x, added, flag, constants, fixed)
        return body(multiply(dict(specs), weights, added), carry, here)

    return jax.lax.scan(step, init, (each, flags), reverse=reverse, unroll=unroll)


def _forward(body, specs, reverse, unroll, weights, init, each, flags, constants, fixed):
    xs, added = each

    def step(carry, here, at):
        (added, ()), (x, flag) = here, at
        plain, results = multiply(dict(specs), weights, added), {}

        def product(name, operand):
            assert name not in results, f"product {name!r} is asked for twice"
            results[name] = plain(name, operand)
            return results[name]

        after, y = body(product, carry, Step(x, added, flag, constants, fixed))
        sums = {name: results.pop(name) for name in added}
        return after, sums, (y, carry, results)

    last, sums, (ys, carries, results) = _replace(
        step, init, added, (), (xs, flags), reverse, unroll
    )
    nothing = dict.fromkeys(added, ())
    saved = carries, {**results, **sums}
    return (last, ys), (saved, weights, xs, nothing, flags, constants, fixed)


def _backward(body, specs, reverse, unroll, residuals, cotangents):
    (carries, results), weights, xs, added, flags, constants, fixed = residuals
    dlast, dys = cotangents
    to_operand = {name: _to_operand(spec, weights[name].kernel) for name, spec in specs}

    def step(sums, here, at):
        (dcarry, dconstants), (results, dy), (x, flag, carry) = sums, here, at

        def function(carry, x, constants, taps):
            operands = {}

            def product(name, operand):
                operands[name] = operand
                return _known(to_operand[name], operand, results[name], taps[name])

            here = Step(x, {}, flag, constants, fixed)
            return body(product, carry, here), operands

        taps = jax.tree.map(jnp.zeros_like, results)
        _, pull, operands = jax.vjp(function, carry, x, constants, taps, has_aux=True)
        dcarry, dx, dmore, dresults = pull((dcarry, dy))
        return (dcarry, jax.tree.map(jnp.add, dconstants, dmore)), dresults, (dx, operands)

    zeros = jax.tree.map(jnp.zeros_like, constants)
    (dinit, dconstants), dresults, (dxs, operands) = _replace(
        step, (dlast, zeros), results, dys, (xs, flags, carries), not reverse, unroll
    )
    dweights = {}
    for name, spec in specs:
        kernel, bias = weights[name]
        operand, letters, result = letters_of(spec)
        d = dresults[name]
        dkernel = contract(f"T{operand},T{result}->{letters}", operands[name], d)
        if bias is not None:
            axes = tuple(range(d.ndim - bias.ndim))
            bias = jnp.sum(d, axes, dtype=jnp.float32).astype(bias.dtype)
        dweights[name] = Weight(dkernel.astype(kernel.dtype), bias)
    deach = dxs, {name: dresults[name] for name in added}
    return dweights, dinit, deach, None, dconstants, None


def _replace(step, init, arrays, others, at, reverse, unroll):
    """`jax.lax.scan` of a step (carry, (slices, others'), at) -> (carry, slices, y).

    Slices are read one turn early, after those before them are written. In the other order XLA
    copies whole arrays at every position wherever a fusion may still be reading; and a fusion that
    looks up a position itself, for several of its results, computes them number by number.
    """
    if unroll > 1:  # a turn reads after it has written, and writes again: new arrays cost less

        def turns(carry, at):
            carry, slices, y = step(carry, *at)
            return carry, (slices, y)

        scan = functools.partial(jax.lax.scan, reverse=reverse, unroll=unroll)
        carry, (arrays, ys) = scan(turns, init, ((arrays, others), at))
        return carry, arrays, ys

    T, options = len(jax.tree.leaves((arrays, at))[0]), {"axis": 0, "allow_negative_indices": False}

    def read(trees, t):  # outside of them: at the nearest end
        index = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False, **options)
        return jax.tree.map(lambda x: index(x, t), trees)

    def turn(sums, at):
        (carry, arrays, here), (t, at) = sums, at
        carry, slices, y = step(carry, here, at)
        update = jax.lax.dynamic_update_index_in_dim
        arrays = jax.tree.map(lambda x, one: update(x, one, t, **options), arrays, slices)
        return (carry, arrays, read((arrays, others), t - 1 if reverse else t + 1)), y

    sums = init, arrays, read((arrays, others), T - 1 if reverse else 0)
    (carry, arrays, _), ys = jax.lax.scan(turn, sums, (jnp.arange(T), at), reverse=reverse)
    return carry, arrays, ys


_recur = jax.custom_vjp(_recur, nondiff_argnums=(0, 1, 2, 3))
_recur.defvjp(_forward, _backward)


def _known(back: Callable[[Array], Array], operand: Array, result: Array, tap: Array) -> Array:
    """The result of a product, known already; its cotangent goes to the operand and the tap."""

    @jax.custom_vjp
    def known(operand: Array, tap: Array) -> Array:
        return result

    known.defvjp(lambda operand, tap: (result, ()), lambda _, d: (back(d), d))
    return known(operand, tap)


def _to_operand(spec: str, kernel: Array) -> Callable[[Array], Array]:
    """The product from a result's cotangent to its operand's."""
    operand, letters, result = letters_of(spec)
    if not {*operand} & {*letters} & {*result}:  # no rows among its axes
        # Transposed here, once: in the loop it would be at every position.
        lie = sorted(letters, key=lambda letter: letter in operand)
        kernel = jax.lax.optimization_barrier(jnp.einsum(f"{letters}->{''.join(lie)}", kernel))
        letters = "".join(lie)
    return lambda d: contract(f"{result},{letters}->{operand}", d, kernel)
