"""What compiled programs cost, and what they must send at the least, against counts by hand."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from experiments import base
from transformer import testing
from transformer.config import Config, from_dict
from transformer.errors import UserError
from transformer.planning import tpu
from transformer.planning.compiled import Cost, least, peak_bytes

LIBTPU = Path(__file__).parents[2] / ".venv" / "libtpu"
N = 3  # layers of the programs below
D = 16


def config(**changes: object) -> Config:
    """Two layers a side, all sizes multiples of 8."""
    tree = base.get_config()
    sizes = {"d_model": 16, "d_ff": 64, "heads": 8, "d_k": 8, "d_v": 8}
    tree.update_from_flattened_dict(
        {
            **{f"model.{key}": size for key, size in sizes.items()},
            "model.encoder_layers": 2,
            "model.decoder_layers": 2,
            "model.attention.backend": "xla",
            "data.tokenizer.vocab_size": 320,
            **changes,
        }
    )
    return from_dict(tree.to_dict())


def loop_cost(**axes: int) -> Cost:
    """Of a gradient step on N layers x → x w, w [D, D], on 8 devices in one loop; float32."""
    layout = testing.layout(**axes)
    split = layout.sharding((None, "embed", None), (N, D, D))
    w = jax.ShapeDtypeStruct((N, D, D), jnp.float32, sharding=split)
    x = jax.ShapeDtypeStruct(
        (24, D), jnp.float32, sharding=layout.sharding(("batch", None), (24, D))
    )

    def loss(w, x):
        return jnp.sum(jnp.square(jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]))

    def step(w, x):
        return w - jax.grad(loss)(w, x)

    compiled = jax.jit(step, out_shardings=split).lower(w, x).compile()
    return Cost.of(compiled.as_text() or "", layout.mesh.shape)


def test_a_data_parallel_step_sends_its_gradients() -> None:
    """All-reduce of N matrices, within the loop or after it: 2 (g - 1) / g of their bytes."""
    cost = loop_cost(data=8)
    assert cost.sent == {"data": 2 * 7 / 8 * N * D * D * 4}


def test_a_step_multiplies_each_layer_three_times() -> None:
    """Forward, and two gradients (the first layer's by its input, too: one loop for all)."""
    assert loop_cost(data=8).flops == 3 * N * 2 * (24 // 8) * D * D


def test_a_split_parameter_is_gathered() -> None:
    """The CPU's compiler does not scatter gradients: it all-reduces them, and takes its part."""
    sent = loop_cost(fsdp=8)
    gather, reduce = 7 / 8 * N * D * D * 4, 2 * 7 / 8 * N * D * D * 4
    assert set(sent.sent) == {"fsdp"}
    assert sent.sent["fsdp"] in (gather + reduce, 2 * gather + reduce)


@functools.cache
def parameters_of(**axes: int) -> dict[str, int]:
    """Numbers of elements: matrices in loops over layers, the embedding, norms, biases."""
    c = config().model
    attention, feed_forward = 4 * c.d_model * c.heads * c.d_k, 2 * c.d_model * c.d_ff
    return {
        "layers": 2 * (attention + feed_forward) + 2 * (2 * attention + feed_forward),
        "table": c.vocab_size * c.d_model,
        "norms": (2 * 2 + 2 * 3) * 2 * c.d_model,
        "down_bias": 4 * c.d_model,
        "up_bias": 4 * c.d_ff,
    }


def test_the_least_of_data_parallelism_is_every_gradient_once() -> None:
    found = least(config(), testing.layout(data=8), 8, 16)
    assert found == {"data": pytest.approx(2 * 7 / 8 * 4 * sum(parameters_of().values()))}


def test_the_least_of_fsdp_gathers_layers_twice_and_the_embedding_once() -> None:
    n = parameters_of()
    found = least(config(), testing.layout(data=2, fsdp=4), 8, 16)
    layers = n["layers"] + n["norms"] + n["down_bias"]
    assert found == {
        "fsdp": pytest.approx(3 / 4 * 4 * (3 * layers + 2 * n["table"])),
        "data": pytest.approx(2 / 2 * 4 * (layers + n["table"]) / 4),
        "data x fsdp": pytest.approx(2 * 7 / 8 * 4 * n["up_bias"]),
    }


def test_the_dtype_of_computation_travels() -> None:
    n = parameters_of()
    found = least(config(**{"model.dtype": "bfloat16"}), testing.layout(data=8), 8, 16)
    assert found == {"data": pytest.approx(2 * 7 / 8 * 2 * (sum(n.values()) + n["norms"]))}


@pytest.mark.parametrize(
    ("sublayers", "vectors"),
    [("sequential", 2 * (2 + 2) + 2 * (3 + 3) + 4), ("parallel", 2 * 2 + 2 * 2 + 4)],
)
def test_the_least_of_tensor_parallelism_sums_vectors_in_every_sublayer(
    sublayers: str, vectors: int
) -> None:
    step = config(**{"model.sublayers": sublayers})
    found = least(step, testing.layout(data=2, tensor=4), 8, 16)
    assert found["tensor"] == pytest.approx(2 * 3 / 4 * vectors * (8 * 16 / 2) * 16 * 4)


def test_a_mesh_whose_least_is_not_derived_is_refused() -> None:
    with pytest.raises(UserError, match="not for this mesh of a transformer"):
        least(config(), testing.layout(sequence=8), 8, 16)


def test_peak_memory_counts_donated_arguments_once() -> None:
    assert peak_bytes({"argument": 70, "output": 50, "alias": 40, "temp": 3}) == 83


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"libtpu, the TPU's compiler, is not there"):
        tpu.compile_step(config(), "v5e:2x4", 8, 16, libtpu=tmp_path / "none")


@pytest.mark.tpu_aot
@pytest.mark.skipif(not LIBTPU.is_dir(), reason="no libtpu: `tests/run -m tpu_aot` installs it")
class TestOnTpu:
    @pytest.mark.parametrize(
        ("mesh", "changes"),
        [
            ({"data": 8}, {}),  # an embedding's three gradients travel as one
            ({"data": 2, "tensor": 4}, {}),  # queries', keys' and values' of what they read, too
            ({"data": 2, "tensor": 4}, {"model.feed_forward": "swiglu"}),
            # Of two outputs' sums the compiler makes one, unless a bias is added between them.
            (
                {"data": 2, "tensor": 4},
                {"model.sublayers": "parallel", "model.feed_forward_bias": False},
            ),
        ],
        ids=["data", "tensor", "tensor-gated", "tensor-parallel"],
    )
    def test_a_small_step_sends_little_more_than_it_must(
        self, mesh: dict[str, int], changes: dict[str, Any]
    ) -> None:
        sizes = {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 1, **mesh}
        axes = {f"mesh.{axis}": size for axis, size in sizes.items()}
        wide = {"model.d_model": 512, "model.d_ff": 512, "data.tokenizer.vocab_size": 1_280}
        step = config(**axes, **wide, **changes)
        program = tpu.compile_step(step, "v5e:2x4", 64, 16, libtpu=LIBTPU)
        cost = Cost.of(program.text, sizes)
        assert program.least is not None
        assert cost.flops > 0
        assert 1.0 <= sum(cost.sent.values()) / sum(program.least.values()) <= 1.1
        assert peak_bytes(program.memory) < 2**30

    def test_an_unknown_topology_is_one_line(self) -> None:
        with pytest.raises(UserError, match="no topology 'v5e:3x5x7' of a TPU"):
            tpu.compile_step(config(), "v5e:3x5x7", 8, 16, libtpu=LIBTPU)
