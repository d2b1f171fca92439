"""Products of activations and weights whose gradients are as fast as they are."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def multiply(spec: str, operand: Array, kernel: Array, dtype: Any = None) -> Array:
    """`einsum` of an activation and a weight, whose gradients are products of the same shape.

    Left to itself, differentiation asks for the weight's with its factors the other way about, and
    so for a transposed copy of the larger one.

    Args:
        spec: of both and the result, all of their letters: "BTD,VD->BTV".
        operand, kernel: of one dtype, in which gradients are multiplied, too.
        dtype: of the result; None: theirs.
    """

    @jax.custom_vjp
    def product(operand: Array, kernel: Array) -> Array:
        return contract(spec, operand, kernel, dtype)

    def backward(saved: tuple[Array, Array], d: Array) -> tuple[Array, Array]:
        (operand, kernel), (a, b, c) = saved, letters_of(spec)
        d = d.astype(operand.dtype)
        return contract(f"{c},{b}->{a}", d, kernel), contract(f"{a},{c}->{b}", operand, d)

    product.defvjp(lambda operand, kernel: (product(operand, kernel), (operand, kernel)), backward)
    return product(operand, kernel)


def contract(spec: str, a: Array, b: Array, dtype: Any = None) -> Array:
    """`einsum` of two arrays that sums over several axes in the order in which they lie.

    `jnp.einsum` takes another order, and a loop then copies both factors at every position.
    """
    (left, right), result = spec.split("->")[0].split(","), spec.split("->")[1]
    rows = [letter for letter in left if letter in right and letter in result]
    summed = [letter for letter in left if letter in right and letter not in result]
    places = lambda letters, of: tuple(of.index(letter) for letter in letters)  # noqa: E731
    numbers = (
        (places(summed, left), places(summed, right)),
        (places(rows, left), places(rows, right)),
    )
    out = jax.lax.dot_general(a, b, numbers, preferred_element_type=dtype)
    order = rows + [x for x in left + right if x in result and x not in rows]
    return jnp.transpose(out, places(result, order))


def letters_of(spec: str) -> tuple[str, str, str]:
    """Of the operand, the weight and the result."""
    inputs, result = spec.split("->")
    operand, weight = inputs.split(",")
    return operand, weight, result
