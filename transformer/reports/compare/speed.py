"""How fast each family trains and writes, by length: one step of each in turn, on one device.

Training: a whole step (forward, backward, Adam) on a batch of full sentences, as many tokens at
every length, so that a length of 4 096 is one row. Decoding: greedy steps of the cached decoder at
the end of sentences of that length, source and target alike, and what the cache then holds.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer.batch import Batch, Source, Target
from transformer.config import Config, SpeedConfig
from transformer.models import Seq2Seq, build_model, parameters
from transformer.models.seq2seq import Cache
from transformer.sharding import Layout
from transformer.training.program import build_program

STEPS = 16  # of decoding in a call
Call = Callable[[], Any]


@dataclass(frozen=True)
class Speed:
    """One experiment's speed at one length; medians over rounds. None: not measured, too slow."""

    train_rounds: list[float]  # seconds of a step in each round
    train_seconds: float | None
    train_tokens: float | None  # target tokens a second
    decode_seconds: float  # a token of each of the rows decoded together
    decode_tokens: float  # target tokens a second, all rows together
    state_bytes: int  # of a hypothesis
    memory_bytes: int  # of a source sentence, kept for decoding


def measure(
    group: Mapping[str, Config], length: int, config: SpeedConfig, skip: set[str]
) -> dict[str, dict[str, Any]]:
    """Each experiment's `Speed` at one length, as plain values by its name.

    Args:
        group: the experiments.
        length: of source and target sentences, in tokens.
        config: how much is measured.
        skip: names whose training is not measured at this length.
    """
    rows = config.tokens // length
    steps: dict[str, Call] = {}
    for name, experiment in group.items():
        if name not in skip:
            steps[name] = _training(experiment, rows, length)
    trained = _take_turns(steps, config.rounds, calls=1)
    steps.clear()
    decoders, sizes = {}, {}
    for name, experiment in group.items():
        decoders[name], sizes[name] = _decoding(experiment, config.rows, length)
    decoded = _take_turns(decoders, config.rounds, calls=4)
    speeds = {}
    for name in group:
        seconds = statistics.median(decoded[name]) / STEPS
        step = statistics.median(trained[name]) if name in trained else None
        speeds[name] = asdict(
            Speed(
                train_rounds=trained.get(name, []),
                train_seconds=step,
                train_tokens=step and rows * length / step,
                decode_seconds=seconds,
                decode_tokens=config.rows / seconds,
                state_bytes=sizes[name][0],
                memory_bytes=sizes[name][1],
            )
        )
    return speeds


def _take_turns(
    calls_by_name: Mapping[str, Call], rounds: int, calls: int
) -> dict[str, list[float]]:
    """Seconds of a call of each, in each round; all have been called once before."""
    seconds: dict[str, list[float]] = {name: [] for name in calls_by_name}
    for _ in range(rounds):
        for name, call in calls_by_name.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            seconds[name].append((time.perf_counter() - start) / calls)
    return seconds


def _training(config: Config, rows: int, length: int) -> Call:
    layout, model = Layout.single(), build_model(config.model)
    program = build_program(config, model, layout)
    state = program.factory.create(config.seed)
    batch = layout.place(full_batch(config.model.vocab_size, rows, length))

    def call() -> None:
        nonlocal state
        state, metrics = program.step(state, batch)
        jax.block_until_ready(metrics.loss)

    call()
    return call


def _decoding(config: Config, rows: int, length: int) -> tuple[Call, tuple[int, int]]:
    """A call that writes STEPS tokens of every row; bytes of a hypothesis, and of a sentence."""
    layout, model = Layout.single(), build_model(config.model)
    params = parameters.create(model, layout, config.seed)
    source = layout.place(full_batch(config.model.vocab_size, rows, length).source)
    cache = layout.jit(lambda params, source: _cache(model, params, source, length))(params, source)
    sizes = tuple(_bytes(part) // rows for part in (cache.per_hypothesis, cache.per_source))

    def write(params: Any, cache: Cache) -> tuple[jax.Array, Cache]:
        def one(_: Any, carry: tuple[jax.Array, Cache]) -> tuple[jax.Array, Cache]:
            hidden, cache = model.apply({"params": params}, *carry, method="step")
            logits_BWV = model.apply({"params": params}, hidden, method="logits")
            return jnp.argmax(logits_BWV, axis=-1).astype(jnp.int32), cache  # pyright: ignore

        cache = cache.replace(index=jnp.int32(max(length - STEPS, 0)))  # pyright: ignore
        return jax.lax.fori_loop(0, STEPS, one, (jnp.full((rows, 1), 5, jnp.int32), cache))

    written = layout.jit(write, donate_argnums=1)

    def call() -> None:
        nonlocal cache
        tokens, cache = written(params, cache)
        jax.block_until_ready(tokens)

    call()
    return call, sizes  # pyright: ignore


def _cache(model: Seq2Seq, params: Any, source: Source, length: int) -> Cache:
    variables = {"params": params}
    memory = model.apply(variables, source, method="encode")
    return model.apply(variables, memory, max(length, STEPS), 1, method="init_cache")  # pyright: ignore


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def full_batch(vocab_size: int, rows: int, length: int) -> Batch:
    """Random tokens without padding; source and target [rows, length]."""
    random = np.random.default_rng(0)
    source, target, labels = random.integers(5, vocab_size, (3, rows, length)).astype(np.int32)
    positions = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    ones = np.ones((rows, length), np.int32)
    weights = ones.astype(np.float32)
    return Batch(Source(source, positions, ones), Target(target, positions, ones, labels, weights))
