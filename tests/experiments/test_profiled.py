"""Where a program's time goes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp

from experiments.benchmarks.profiled import RecordedLayout, _own, milliseconds


def test_time_is_told_by_the_names_that_the_program_gives() -> None:
    def program(x: jax.Array) -> jax.Array:
        with jax.named_scope("first"):
            y = jax.lax.fori_loop(0, 7, lambda _, y: (y @ y) / 300, x)
        with jax.named_scope("second"):
            return jnp.sort(y @ x)

    recorded = RecordedLayout.single()
    run, x = recorded.jit(program), jnp.ones((300, 300))
    run(x).block_until_ready()
    parts = [("loop", r"first.*/dot_general"), ("after", r"/dot_general")]
    spent = milliseconds(lambda: run(x).block_until_ready(), recorded.scopes, parts)
    assert {*spent} == {"loop", "after", "all else"}
    assert (spent["loop"]["instructions"], spent["after"]["instructions"]) == (7, 1)
    assert all(part["ms"] > 0 for part in spent.values())
    assert [*spent.values()] == sorted(spent.values(), key=lambda part: -part["ms"])


def test_a_loops_time_is_without_its_bodys() -> None:
    def event(start: int, end: int, **stats: str) -> SimpleNamespace:
        spans = {"start_ns": start, "end_ns": end, "duration_ns": end - start}
        return SimpleNamespace(stats=stats.items(), **spans)

    inner, outer = event(10, 40, hlo_op="dot"), event(0, 100, hlo_op="while")
    nested = [event(20, 30, hlo_op="add"), inner, event(40, 60, hlo_op="dot"), outer]
    events = [*nested, event(0, 200), event(100, 120, hlo_op="sort")]
    assert [own for _, own in _own(events)] == [50, 20, 10, 20, 20], "in their order"
