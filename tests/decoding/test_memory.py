"""A search that no memory can hold is refused before it begins; nothing else is."""

import re
from typing import Any

import jax
import pytest

from tests.decoding.test_translate import translator
from transformer import memory as system
from transformer.decoding import memory
from transformer.errors import UserError
from transformer.sharding import Layout


def test_a_beam_that_does_not_fit_is_refused_before_anything_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []

    class Named(Layout):
        def jit(self, function: Any, **options: Any) -> Any:
            def traced(*arguments: Any) -> Any:
                compiled.append(function.__name__)
                return function(*arguments)

            return super().jit(traced, **options)

    # 2 sentences of 12 tokens: 2 x 3 x 1,012 tokens written, twice; 2 x 12 of the source, and twice
    # its segments; a counter; 2 x 3 x 31 logits.
    needed = 4 * (2 * 3 * 1_012 * 2 + 2 * 12 * 2 + 1 + 2 * 3 * 31)
    for there in (needed - 1, needed):
        subject = translator(beam=3, extra_length=1_000, layout=Named.single())
        monkeypatch.setattr(memory, "SMALL", 0)
        monkeypatch.setattr(system, "available_bytes", lambda there=there: there)
        compiled.clear()
        if there < needed:
            for refused in (subject.translate, subject.translate_each):
                with pytest.raises(UserError, match=r"beam=3 and decoding.extra_length=1000 take"):
                    refused(["ab"])
            with pytest.raises(UserError, match=r"for 2 sentences of 12 tokens"):
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
