"""Each row trained with each seed, scored on the development set, compared with the first row."""

import dataclasses
from collections.abc import Mapping, Sequence

from transformer.config import Config
from transformer.config.experiment import PLACEMENT_KEYS
from transformer.config.experiment_files import Row
from transformer.errors import UserError
from transformer.files import AnyPath
from transformer.nested import without
from transformer.reports import folder
from transformer.reports.runs import Run
from transformer.reports.table3.report import write_report
from transformer.runtime import Exit

FILE = "table3.json"


def table3(rows: Mapping[str, tuple[Config, Row]], seeds: Sequence[int], workdir: AnyPath) -> Exit:
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
    configs = {name: config for name, (config, _) in rows.items()}
    first = next(iter(configs))
    data = configs[first].data
    for name, config in configs.items():
        # The paper's big has a vocabulary of its own.
        if dataclasses.replace(config.data, tokenizer=data.tokenizer) != data:
            raise UserError(f"row {name} has other data than {first}: give all the same")
    described = {
        name: without(config.as_dict(), PLACEMENT_KEYS) for name, config in configs.items()
    }
    published = {name: row.published for name, (_, row) in rows.items()}
    with folder.acquire(workdir, FILE, {"rows": described}, ()):
        runs = [
            Run("table3", name, seed, config, workdir)
            for seed in seeds
            for name, config in configs.items()
        ]
        code = folder.carry_out_all(runs, "dev")
        if code == Exit.DONE:
            for path in write_report(published, runs, workdir):
                print(path)
    return code
