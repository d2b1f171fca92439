"""What every test runs under: eight virtual CPU devices, checked shapes, strict promotion."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import beartype.typing  # noqa: F401
import hypothesis
import psutil
import pytest
from jaxtyping import install_import_hook

# Before anything imports the package: its annotations are checked at every call. An int is a float;
# Self passes, which beartype can check only where it decorates whole classes.
install_import_hook(
    "transformer",
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, "
    "hint_overrides=beartype.FrozenDict({beartype.typing.Self: object})))",
)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
import jax  # noqa: E402

from tests.support import processes  # noqa: E402
from transformer import testing  # noqa: E402
from transformer.checkpoints import orbax_io  # noqa: E402
from transformer.upstream import compilation_cache  # noqa: E402

testing.virtual_devices(8)
jax.config.update("jax_disable_most_optimizations", True)  # halves the time to compile
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# One folder of compiled programs for all workers, commands and later runs: each is written whole.
PROGRAMS = str(Path(__file__).parents[1] / ".cache" / "jax")
compilation_cache.install()
jax.config.update("jax_compilation_cache_dir", PROGRAMS)
os.environ["JAX_COMPILATION_CACHE_DIR"] = PROGRAMS

# The same examples every time, and no failure because the machine was busy.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True)
hypothesis.settings.load_profile("tests")

RESIDENT = 1.2e9  # bytes


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Processes that a failed test started end with it."""
    yield
    processes.end_all()


@pytest.fixture(autouse=True)
def memory_given_back() -> Iterator[None]:
    """Traced and compiled programs go where a process holds much: it would come to hold 5 GB."""
    yield
    if psutil.Process().memory_info().rss > RESIDENT:
        jax.clear_caches()
        gc.collect()
        orbax_io.trim()


@pytest.fixture(autouse=True)
def dtype_promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """Strict, but where a test runs Optax, whose optimizers mix integers and floats."""
    level = "standard" if request.node.get_closest_marker("optax") else "strict"
    with jax.numpy_dtype_promotion(level):
        yield
