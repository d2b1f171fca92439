"""A search that no memory can hold is refused before it begins; nothing else is."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.decoding.test_translate import NO_CONFIG, OPTIONS, Letters, Successor
from transformer.decoding import Translator, memory
from transformer.errors import UserError


def kernel(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 99 kB\nMemAvailable: 5 kB\nSwapFree: 2 kB\n"}, 7 * 1024),
        (
            {
                "proc/self/cgroup": "0::/jobs/7\n",
                "proc/meminfo": "MemAvailable: 5000 kB\n",
                "sys/fs/cgroup/jobs/7/memory.max": "max\n",
                "sys/fs/cgroup/jobs/memory.max": "3000\n",
                "sys/fs/cgroup/jobs/memory.current": "1000\n",
                "sys/fs/cgroup/jobs/memory.stat": "anon 7\nactive_file 200\ninactive_file 100\n",
            },
            2300,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/a\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
            },
            2000,
        ),
    ],
    ids=["unknown", "kernel", "cgroup 2", "cgroup 1 in a container"],
)
def test_what_is_there_is_what_the_system_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int | None
) -> None:
    kernel(tmp_path, files)
    monkeypatch.setattr(memory, "SYSTEM", tmp_path)
    assert memory.available_bytes() == expected


def test_a_beam_that_does_not_fit_is_refused_before_anything_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[Any] = []

    def search(function: Any) -> Any:
        def traced(*arguments: Any) -> Any:
            compiled.append(function.__name__)
            return function(*arguments)

        return jax.jit(traced)

    options = {**OPTIONS, "beam": 3, "extra_length": 1_000, "jit": search}
    params = {"scale": jnp.float32(1.0)}
    # 2 sentences of 4 tokens: 2 x 3 x 1,004 tokens written, twice; 2 x 4 of the source, and twice
    # its segments; a counter; 2 x 3 x 31 logits.
    needed = 4 * (2 * 3 * 1_004 * 2 + 2 * 4 * 2 + 1 + 2 * 3 * 31)
    for there in (needed - 1, needed):
        subject = Translator(Successor(NO_CONFIG), params, Letters(), **options)
        monkeypatch.setattr(memory, "SMALL", 0)
        monkeypatch.setattr(memory, "available_bytes", lambda there=there: there)
        compiled.clear()
        if there < needed:
            for refused in (subject.translate, subject.translate_each):
                with pytest.raises(UserError, match=r"beam=3 and decoding.extra_length=1000 take"):
                    refused(["ab"])
            with pytest.raises(UserError, match=r"for 2 sentences of 4 tokens"):
                subject.refuse_too_large([3])
            assert "_search_batch" not in compiled
        else:
            monkeypatch.setattr(memory, "bytes_of", lambda program: needed + 1)
            with pytest.raises(UserError, match=r"decoding.extra_length=1000 take at least"):
                subject.refuse_too_large([3])
            monkeypatch.setattr(memory, "bytes_of", lambda program: needed)
            subject.refuse_too_large([3])
            assert len(subject.translate(["ab"])[0]) == 1


def test_memory_that_runs_out_all_the_same_is_one_line() -> None:
    line = re.escape("out of memory with decoding.beam=9")
    with pytest.raises(UserError, match=line), memory.said_in_one_line(9, 50):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 2")
    with pytest.raises(jax.errors.JaxRuntimeError), memory.said_in_one_line(9, 50):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
