"""Products of activations and weights: float or int8, with gradients as fast as they are."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from transformer.models.quantization import Int8, rounded


def product(spec: str, x: Array, kernel: Any, dtype: Any = None) -> Array:
    """`einsum` of an activation and a weight, float32 or `Int8`.

    Args:
        spec: of both and the result: first what the activation keeps, then what the weight does.
        x: the activation; a float weight is multiplied in its dtype.
        dtype: of the result; None: the activation's.
    """
    if not isinstance(kernel, Int8):
        return jnp.einsum(spec, x, kernel.astype(x.dtype), preferred_element_type=dtype)
    operand, weight, result = letters_of(spec)
    small = rounded(x, tuple(i for i, letter in enumerate(operand) if letter not in result))
    sums = contract(spec, small.values, kernel.values, jnp.int32)
    result_sizes = [
        [x.shape[i] for i, a in enumerate(letters) if a in result]
        for x, letters in ((x, operand), (kernel.values, weight))
    ]
    scale_of_x = small.scale.reshape(*result_sizes[0], *[1] * len(result_sizes[1]))
    scale_of_kernel = kernel.scale.reshape(*[1] * len(result_sizes[0]), *result_sizes[1])
    return (sums.astype(jnp.float32) * scale_of_x * scale_of_kernel).astype(dtype or x.dtype)


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
    def forward(operand: Array, kernel: Array) -> Array:
        return contract(spec, operand, kernel, dtype)

    def backward(saved: tuple[Array, Array], d: Array) -> tuple[Array, Array]:
        (operand, kernel), (a, b, c) = saved, letters_of(spec)
        d = d.astype(operand.dtype)
        return contract(f"{c},{b}->{a}", d, kernel), contract(f"{a},{c}->{b}", operand, d)

    forward.defvjp(lambda operand, kernel: (forward(operand, kernel), (operand, kernel)), backward)
    return forward(operand, kernel)


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
    """Splits an einsum's spec into the letters of operand, weight and result."""
    inputs, result = spec.split("->")
    operand, weight = inputs.split(",")
    return operand, weight, result
