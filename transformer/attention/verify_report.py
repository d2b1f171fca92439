"""What `verify` found, to read: a summary for the terminal, and the whole table."""

from collections.abc import Sequence

from transformer.attention.verify import LIMITS, ROWS, USES, VARIANTS, Cell

CASES = (*ROWS, *VARIANTS)


def summary(cells: Sequence[Cell]) -> str:
    """One line a backend and use, one column a mask: ok, FAULT or a reason's number."""
    reasons: dict[str, int] = {}
    backends = list(dict.fromkeys(cell.backend for cell in cells))
    by_case = {(cell.backend, cell.use, cell.case): cell for cell in cells}
    rows = []
    for backend in backends:
        for use in USES:
            marks = []
            for case in CASES:
                cell = by_case.get((backend, use, case))
                if cell is None:
                    marks.append("")
                elif cell.fault:
                    marks.append("FAULT")
                elif cell.refused:
                    marks.append(f"no ({reasons.setdefault(cell.refused, len(reasons) + 1)})")
                else:
                    marks.append("ok")
            if any(marks):
                rows.append([backend, use, *marks])
    faults = [f"{c.backend}, {c.use}, {c.case}: {c.fault}" for c in cells if c.fault]
    notes = [f"({number}) {why}" for why, number in reasons.items()]
    return "\n".join([*_aligned([["backend", "use", *CASES], *rows]), "", *notes, *faults])


def table(cells: Sequence[Cell]) -> str:
    """Every cell's errors, relative to the reference's largest number, in Markdown."""
    header = ["backend", "use", "mask"]
    header += [f"{name}, {precision}" for name in ("forward", "backward") for precision in LIMITS]
    header += ["leaks"]
    rows = [header, ["---"] * len(header)]
    for cell in cells:
        row = [cell.backend, cell.use, cell.case]
        if cell.refused:
            row += [f"refuses: {cell.refused}"]
        else:
            for errors in (cell.forward, cell.backward):
                row += [f"{errors[p]:.0e}" if p in errors else "" for p in LIMITS]
            row += [f"{cell.leaks} ({cell.leaks_tried} queries)"]
        rows.append(row + [""] * (len(header) - len(row)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
