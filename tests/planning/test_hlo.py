"""Facts read off HLO's text: small modules written by hand, whose numbers are counted by hand."""

import numpy as np
import pytest

from transformer.planning.hlo import Module, Shape

MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def module(*lines: str, before: str = "") -> Module:
    body = "\n".join(f"  {line}" for line in lines)
    return Module(f"HloModule m\n\n{before}\nENTRY %main (x: f32[4,6]) -> f32[] {{\n{body}\n}}\n")


X = "%x = bf16[4,6]{1,0:T(8,128)(2,1)} parameter(0)"  # 48 bytes
ALL = "channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true"


@pytest.mark.parametrize(
    ("line", "kind", "sent"),
    [
        (f"%y = bf16[16,6]{{1,0}} all-gather(%x), {ALL}, dimensions={{0}}", "all-gather", 3 * 48),
        (f"%y = bf16[1,6] reduce-scatter(%x), {ALL}", "reduce-scatter", 36),
        (f"%y = bf16[4,6]{{1,0}} all-reduce(%x), {ALL}", "all-reduce", 72),
        (f"%y = bf16[4,6]{{1,0}} all-to-all(%x), {ALL}", "all-to-all", 36),
        (
            "%y = (bf16[4,6]{1,0}, bf16[4,6]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) "
            "collective-permute-start(%x), channel_id=1, source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            48,
        ),
    ],
)
def test_what_a_ring_sends(line: str, kind: str, sent: float) -> None:
    (found,) = module(X, line).collectives
    assert (found.kind, found.sent, found.times) == (kind, sent, 1)
    assert found.shapes == (Shape("bf16", (4, 6)),)


def test_an_asynchronous_one_counts_once() -> None:
    """Its end, and another piece of work that it overlaps, are no others; permutes are."""
    start = f"(bf16[4,6]{{1,0}}, bf16[16,6]{{1,0}}) all-gather-start(%x), {ALL}, dimensions={{0}}"
    permute = "bf16[4,6] collective-permute(%x), channel_id=2, source_target_pairs={{0,1},{1,0}}"
    found = module(
        X,
        f"%a = {start}",
        f"%b = {start}",
        "%d = bf16[16,6]{1,0} all-gather-done(%a)",
        f"%p = {permute}",
        f"%q = {permute}",
    ).collectives
    assert [one.kind for one in found] == ["all-gather", "collective-permute", "collective-permute"]


def test_tpus_reduce_scatters_are_fusions_and_count_each() -> None:
    """Those that it combined all have one channel."""
    before = "".join(
        f"%all-reduce-scatter.{n} (p: bf16[4,6]) -> bf16[1,6] {{\n"
        "  %p = bf16[4,6]{1,0} parameter(0)\n"
        f"  %r = bf16[4,6]{{1,0}} all-reduce(%p), {ALL}\n"
        "  ROOT %s = bf16[1,6]{1,0} dynamic-slice(%r), dynamic_slice_sizes={1,6}\n}\n"
        for n in (1, 2)
    )
    fusion = "bf16[1,6] fusion(%x), kind=kCustom, calls=%all-reduce-scatter"
    found = module(X, f"%y = {fusion}.1", f"%z = {fusion}.2", before=before).collectives
    assert [(one.kind, one.sent) for one in found] == 2 * [("reduce-scatter", 36)]


GROUPS = {
    "replica_groups={{0,4},{1,5},{2,6},{3,7}}": ("data",),
    "replica_groups=[4,2]<=[8]": ("tensor",),
    "replica_groups=[4,2]<=[2,4]T(1,0)": ("data",),
    "replica_groups=[2,4]<=[2,2,2]T(1,0,2)": ("data", "tensor"),
    "replica_groups=mesh['a'=2,'b'=2,'c'=2] {'b'}": ("fsdp",),
    "replica_groups=mesh['a'=2,'b'=4] {'a','b'}": ("data", "fsdp", "tensor"),
    "replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}": ("fsdp", "tensor"),
    "source_target_pairs={{0,2},{2,0},{5,7},{7,5}}": ("fsdp",),
}


@pytest.mark.parametrize("notation", GROUPS)
def test_groups_of_chips_are_axes_of_the_mesh(notation: str) -> None:
    kind = "collective-permute" if "pairs" in notation else "all-reduce"
    line = f"%y = bf16[4,6] {kind}(%x), {notation}, use_global_device_ids=true"
    (found,) = module(X, line).collectives
    assert found.axes(MESH) == GROUPS[notation]


def test_groups_are_those_listed() -> None:
    line = "%y = bf16[4,6] all-reduce(%x), replica_groups=[2,4]<=[2,2,2]T(1,0,2)"
    (found,) = module(X, line).collectives
    np.testing.assert_array_equal(found.groups, [[0, 1, 4, 5], [2, 3, 6, 7]])


def test_an_unknown_notation_is_an_error() -> None:
    line = "%y = bf16[4,6] all-reduce(%x), replica_groups=mesh['a'=8] {'a':(2)4}"
    with pytest.raises(ValueError, match="unknown notation"):
        _ = module(X, line).collectives


def loop(condition: str, update: str, start: str, noted: str = "") -> Module:
    """A loop whose body has one product of 4 x 6 by 6 x 4, around another loop with the same."""
    before = f"""
%condition (s: (s32[], bf16[4,6])) -> pred[] {{
  %s = (s32[], bf16[4,6]{{1,0}}) parameter(0)
  %bound = s32[] constant(12)
  %i = s32[]{{:T(128)}} get-tuple-element(%s), index=0
  ROOT %c = pred[] {condition}
}}

%body (t: (s32[], bf16[4,6])) -> (s32[], bf16[4,6]) {{
  %t = (s32[], bf16[4,6]{{1,0}}) parameter(0)
  %j = s32[] get-tuple-element(%t), index=0
  %a = bf16[4,6]{{1,0}} get-tuple-element(%t), index=1
  %two = s32[] constant(2)
  %p = f32[4,4] dot(%a, %a), lhs_contracting_dims={{1}}, rhs_contracting_dims={{1}}
  %k = s32[] {update}
  ROOT %u = (s32[], bf16[4,6]{{1,0}}) tuple(%k, %a)
}}
"""
    state = "(s32[], bf16[4,6]{1,0})"
    while_ = f"{state} while(%t0), condition=%condition, body=%body{noted}"
    zero = f"%zero = s32[] constant({start})"
    copied = "%first = s32[] copy(%zero)"
    return module(
        X, zero, copied, f"%t0 = {state} tuple(%first, %x)", f"%w = {while_}", before=before
    )


BELOW = "compare(%i, %bound), direction=LT"
PRODUCT = 2 * 4 * 4 * 6


@pytest.mark.parametrize(
    ("update", "start", "noted", "trips"),
    [
        ("add(%j, %two)", "0", "", 6),
        ("add(%j, %two)", "3", "", 5),
        ("add(%two, %j)", "0", ', backend_config={"known_trip_count":{"n":"5"}}', 5),
    ],
)
def test_a_loops_body_counts_as_often_as_it_runs(
    update: str, start: str, noted: str, trips: int
) -> None:
    found = loop(BELOW, update, start, noted)
    assert found.runs["body"] == trips
    assert found.flops == trips * PRODUCT


@pytest.mark.parametrize(
    ("condition", "update"),
    [
        ("compare(%i, %bound), direction=GT", "add(%j, %two)"),
        (BELOW, "multiply(%j, %two)"),
        (BELOW, "get-tuple-element(%t), index=0"),
    ],
)
def test_a_loop_that_does_not_say_its_trips_is_an_error(condition: str, update: str) -> None:
    with pytest.raises(ValueError, match="loop w does not say how often it runs"):
        _ = loop(condition, update, "0").runs


def convolution(left: str, right: str, out: str, attributes: str) -> float:
    return module(
        f"%x = bf16[{left}] parameter(0)",
        f"%k = bf16[{right}] parameter(1)",
        f"%y = bf16[{out}]{{2,1,0:T(8,128)(2,1)}} convolution(%x, %k), {attributes}",
    ).flops


def test_a_tpus_products_are_convolutions() -> None:
    """As the compiler wrote them for the big model: [B, T, D] by [D, F], and by heads."""
    plain = convolution("32,5,7", "7,11,1", "32,5,11", "window={size=1}, dim_labels=0bf_io0->0bf")
    assert plain == 2 * 32 * 5 * 7 * 11
    window = "window={size=1x16 pad=0_0x15_15 rhs_reversal=0x1}"
    heads = convolution(
        "32,5,7,1", "7,16,3,1", "32,5,16,3", f"{window}, dim_labels=0bf1_i1o0->0b1f"
    )
    assert heads == 2 * 32 * 5 * 7 * 16 * 3, "of sixteen heads at each place fifteen meet padding"


def test_a_batched_product_has_no_multiplications_with_holes() -> None:
    """Batch B as a spatial axis: stride and holes let each output meet its own batch alone."""
    window = "window={size=3 stride=2 pad=0_0 lhs_dilate=3}"
    found = convolution("3,5,7", "3,7,11", "3,5,11", f"{window}, dim_labels=0bf_0io->0bf")
    assert found == 2 * 3 * 5 * 7 * 11


def test_text_that_is_no_module_is_an_error() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        Module("nothing of the kind")
