"""Each row trained with each seed, scored on the development set, compared with the first row."""

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


@dataclass(frozen=True)
class RowOfTable:
    """What is trained in a row, and what a paper printed in it, if one did."""

    config: Config
    printed: Printed | None


def table3(rows: Mapping[str, RowOfTable], seeds: Sequence[int], workdir: Path) -> Exit:
    """Fills the table, or goes on with it, and writes its report.

    Returns:
        Exit.DONE, or Exit.PREEMPTED when a signal stopped it and all is saved.

    Raises:
        UserError: the directory holds something else, or a row cannot be trained.
    """
    if len(rows) < 2 or len(seeds) < 2:
        raise UserError(
            f"a table needs two rows and two seeds at least: it has the rows {', '.join(rows)} and "
            f"{len(seeds)} seeds"
        )
    first, data = next((name, row.config.data) for name, row in rows.items())
    for name, row in rows.items():
        # The paper's big has a vocabulary of its own.
        if dataclasses.replace(row.config.data, tokenizer=data.tokenizer) != data:
            raise UserError(f"row {name} has other data than {first}: give all the same")
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
