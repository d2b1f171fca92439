"""Attention: the paper's equation on literal numbers, and which backend is taken, or refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.attention import Dropout, Mask, Split, attend, attention_weights, ring
from transformer.attention.backends import Call, select
from transformer.errors import UserError
from transformer.testing import assert_equals_reference

B, T, S, H, K, U = 2, 5, 7, 6, 3, 11


def full(T: int, S: int, rows: int = 1, **options) -> Mask:
    ones = lambda n: jnp.ones((rows, n), jnp.int32)  # noqa: E731
    count = lambda n: jnp.tile(jnp.arange(n, dtype=jnp.int32), (rows, 1))  # noqa: E731
    return Mask(ones(T), ones(S), count(T), count(S), **options)


def test_soft_dictionary_lookup() -> None:
    """Three keys, d_k = 3, a query equal to the second key: the second value comes back."""
    keys = 10.0 * jnp.eye(3)
    values = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    q, k, v = keys[None, 1:2, None], keys[None, :, None], values[None, :, None]
    scaled = 100.0 / np.sqrt(3.0)  # q·k₂ / √d_k = 57.7; the other logits are 0
    weights = attention_weights(q, k, mask=full(1, 3))[0, 0, 0]
    softmax = np.exp([0.0 - scaled, 0.0, 0.0 - scaled])
    np.testing.assert_allclose(weights, softmax / softmax.sum(), atol=1e-7)
    np.testing.assert_allclose(attend(q, k, v, mask=full(1, 3))[0, 0, 0], values[1], atol=1e-6)


def test_equation_one_in_numpy() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(n, d)).astype(np.float32) for n, d in ((T, K), (S, K), (S, U)))
    scores = q @ k.T / np.sqrt(K)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    qkv = (jnp.asarray(x)[None, :, None] for x in (q, k, v))
    out = attend(*qkv, mask=full(T, S), backend="reference")
    np.testing.assert_allclose(out[0, :, 0], weights @ v, atol=1e-6)


def test_mask_as_a_literal_matrix() -> None:
    """Two packed sentences and a padded end: causal, within a segment, at most 1 position back."""
    segments, positions = jnp.array([[1, 1, 1, 2, 2, 0]]), jnp.array([[0, 1, 2, 0, 1, 0]])
    mask = Mask(segments, segments, positions, positions, is_causal=True, window=2)
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(mask.dense()[0].astype(int), expected)


@pytest.mark.parametrize("backend", ["reference", "xla", "chunked"])
def test_dropout_keeps_the_mean_and_some_weights(backend: str) -> None:
    q = jax.random.normal(jax.random.key(0), (B, T, H, K))
    k, v = jax.random.normal(jax.random.key(1), (B, S, H, K)), jnp.ones((B, S, H, U))
    mask = full(T, S, rows=B)
    dropout = Dropout(jax.random.key(3), rate=0.4)
    out = attend(q, k, v, mask=mask, dropout=dropout, backend=backend)
    assert 0.7 < float(out.mean()) < 1.3
    assert float(out.std()) > 0.1
    if backend == "xla":
        exact = attend(q, k, v, mask=mask, dropout=dropout, backend="reference")
        assert_equals_reference(out, exact)


def test_devices_drop_weights_of_their_own() -> None:
    """Rows on different devices do not share their dropout."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    x = jnp.tile(jax.random.normal(jax.random.key(0), (1, T, H, K)), (2, 1, 1, 1))
    dropout = Dropout(jax.random.key(3), rate=0.4)
    for split in (None, Split(mesh, batch=("data",))):
        out = attend(
            x, x, x, mask=full(T, T, rows=2), dropout=dropout, backend="chunked", split=split
        )
        assert not np.allclose(out[0], out[1])


def call(platform: str, length: int = 256, d_v: int = 64, **changes) -> Call:
    shape = lambda *sizes: jax.ShapeDtypeStruct((8, length, *sizes), jnp.bfloat16)  # noqa: E731
    ids = np.ones((8, length), np.int32)
    mask = Mask.self_attention(ids, ids, causal=True)
    arrays = (shape(8, 64), shape(8, 64), shape(8, d_v))
    return dataclasses.replace(Call(*arrays, mask, None, None, None, platform), **changes)


def split_over(**axes: int) -> Split:
    count = int(np.prod(list(axes.values())))
    devices = np.array(jax.devices()[:count]).reshape(*axes.values())
    mesh = jax.sharding.Mesh(devices, tuple(axes))
    named = {"batch": "data", "length": "sequence", "heads": "tensor"}
    return Split(mesh, **{key: (axis,) for key, axis in named.items() if axis in axes})


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        ("splash", call("tpu")),
        ("xla", call("tpu", 1)),
        ("cudnn", call("gpu")),
        ("xla", call("gpu", d_v=128)),
        ("xla", call("cpu")),
        ("chunked", call("cpu", 8192)),
        ("ring", call("cpu", split=split_over(data=2, sequence=4))),
        ("xla", call("cpu", split=split_over(data=2, tensor=4))),
        (
            "ulysses",
            call("cpu", split=split_over(sequence=4), dropout=Dropout(jax.random.key(0), 0.1)),
        ),
    ],
)
def test_auto_takes_the_best_that_can_serve(expected: str, case: Call) -> None:
    assert select("auto", case).name == expected


@pytest.mark.parametrize(
    ("name", "case", "why"),
    [
        (
            "flash",
            call("cpu"),
            "backend 'flash'; there are auto, ring, ulysses, splash",
        ),
        ("ring:ring", call("cpu"), "no attention backend 'ring:ring'"),
        ("ring:xla", call("cpu"), "runs on block kernels, chunked or splash, which xla is not"),
        ("cudnn", call("cpu"), "cuDNN runs on NVIDIA GPUs"),
        ("cudnn", call("gpu", d_v=128), "one head size, got d_k = 64 and d_v = 128"),
        ("splash", call("gpu"), "a kernel for TPUs"),
        ("splash", call("tpu", bias=lambda q, k: q), "no additive bias"),
        ("ulysses", call("cpu", split=split_over(tensor=4, sequence=2), d_v=64), None),
        ("ulysses", call("cpu", split=split_over(tensor=2, sequence=3)), "4 heads .* to 3 devices"),
        ("chunked", call("cpu", split=split_over(tensor=3)), "8 heads do not divide over tensor"),
        ("chunked", call("cpu", split=split_over(data=3)), "8 rows do not divide over data = 3"),
    ],
)
def test_what_cannot_serve_says_why(name: str, case: Call, why: str | None) -> None:
    if why is None:
        assert select(name, case).name == name
        return
    with pytest.raises(UserError, match=why):
        select(name, case)


def test_a_ring_on_one_device_is_its_kernel() -> None:
    """So that a model trained on many devices decodes on one."""
    x = jax.random.normal(jax.random.key(0), (B, T, H, K))
    mask = full(T, T, rows=B, is_causal=True)
    expected = attend(x, x, x, mask=mask, backend="reference")
    for name in ("ring", "ulysses"):
        assert_equals_reference(attend(x, x, x, mask=mask, backend=name), expected)


def test_a_ring_gives_each_device_a_piece_from_both_ends() -> None:
    """Of 2n pieces, device d works on d and 2n - 1 - d; and they come back where they were."""
    split = split_over(sequence=4)
    there, back = ring._mirrored(("sequence",), 4)
    spec = jax.sharding.PartitionSpec(None, "sequence")
    options = {"mesh": split.devices, "in_specs": spec, "out_specs": spec}
    pieces = jnp.arange(8)[None]
    moved = jax.shard_map(there, **options)(pieces)
    assert [set(pair) for pair in np.asarray(moved).reshape(4, 2).tolist()] == [
        {d, 7 - d} for d in range(4)
    ]
    np.testing.assert_array_equal(jax.shard_map(back, **options)(moved), pieces)


def test_heads_that_cannot_be_grouped_are_refused() -> None:
    x = jnp.ones((1, 3, 5, 2))
    with pytest.raises(UserError, match="5 query heads cannot share 2 key/value heads"):
        attend(x, x[:, :, :2], x[:, :, :2], mask=full(3, 3))


def test_a_number_in_a_bias_may_be_pythons() -> None:
    x = jax.random.normal(jax.random.key(0), (1, T, 2, K))
    bias = jax.tree_util.Partial(lambda slope, q, k: slope * jnp.ones((1, 1, T, T)), 0.3)
    for backend in ("chunked", "reference"):
        out = attend(x, x, x, mask=full(T, T), bias=bias, backend=backend)
        assert bool(jnp.isfinite(out).all())


def test_memory_is_reckoned_by_what_is_split() -> None:
    split = split_over(sequence=4)
    assert call("cpu", 8192, split=dataclasses.replace(split, length=())).scores_bytes == (
        4 * call("cpu", 8192, split=split).scores_bytes
    )


def test_masks_by_name_are_what_numpy_says() -> None:
    """Nothing masked, the future, padding: with no array of ones made by hand."""
    B, T, S, H, K = 2, 5, 7, 3, 4
    draw = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)  # noqa: E731
    q, k, v = draw(0, B, T, H, K), draw(1, B, S, H, K), draw(2, B, S, H, K)

    def expected(allowed_BTS: np.ndarray, k: jax.Array, v: jax.Array) -> np.ndarray:
        scores = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(K)
        exp = np.exp(scores) * allowed_BTS[:, None]
        return np.einsum("bhts,bshk->bthk", exp / exp.sum(-1, keepdims=True), v)

    everything = np.ones((B, T, S))
    np.testing.assert_allclose(attend(q, k, v), expected(everything, k, v), atol=1e-5)
    lengths = jnp.array([4, 7])
    padded = everything * (np.arange(S) < np.array([[4], [7]]))[:, None]
    for mask in (Mask.padding(lengths), Mask.padding(lengths, S)):
        np.testing.assert_allclose(attend(q, k, v, mask=mask), expected(padded, k, v), atol=1e-5)
    past, k, v = np.tril(np.ones((T, T)))[None], k[:, :T], v[:, :T]
    for backend in ("reference", "xla", "chunked", "splash"):
        out = attend(q, k, v, mask=Mask.causal(T), backend=backend)
        np.testing.assert_allclose(out, expected(past, k, v), atol=1e-5)
    with pytest.raises(UserError, match=r"k_segments are \(1, 5\), for 2 rows of 7 keys"):
        attend(q, draw(1, B, S, H, K), draw(2, B, S, H, K), mask=Mask.causal(T))
