"""Every row trained with every seed, scored on the development set, and compared with base."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer.config import Config
from transformer.errors import UserError
from transformer.reports import folder
from transformer.reports.runs import Run
from transformer.reports.table3.report import Printed, write_report
from transformer.runtime import Exit

FILE = "table3.json"
BASE = "base"


@dataclass(frozen=True)
class RowOfTable:
    """What is trained in a row, and what the paper printed in it."""

    config: Config
    printed: Printed


def table3(rows: Mapping[str, RowOfTable], seeds: Sequence[int], workdir: Path) -> Exit:
    """Fills the table, or goes on with it, and writes its report.

    Returns:
        Exit.DONE, or Exit.PREEMPTED when a signal stopped it and all is saved.

    Raises:
        UserError: the directory holds something else, or a row cannot be trained.
    """
    if BASE not in rows or len(seeds) < 2:
        raise UserError(
            f"a table needs a row {BASE!r} and two seeds at least: it has the rows "
            f"{', '.join(rows)} and {len(seeds)} seeds"
        )
    for name, row in rows.items():
        tokenizer = rows[BASE].config.data.tokenizer  # the paper's big has a vocabulary of its own
        if dataclasses.replace(row.config.data, tokenizer=tokenizer) != rows[BASE].config.data:
            raise UserError(f"row {name} has other data than {BASE}: give all the same")
    config = {name: row.config.as_dict() for name, row in rows.items()}
    with folder.claim(workdir, FILE, {"rows": config}, ()):
        runs = [
            Run("table3", name, seed, row.config, workdir)
            for seed in seeds
            for name, row in rows.items()
        ]
        code = folder.carry_out_all(runs, "dev")
        if code == Exit.DONE:
            printed = {name: row.printed for name, row in rows.items()}
            for path in write_report(printed, runs, workdir):
                print(path)
    return code
