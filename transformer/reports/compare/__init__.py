"""`transformer compare`: families trained and measured side by side, and one report of it all.

    budgets.py    what "the same budget" means        runs.py      one training and its result
    speed.py      a step and a token, by length       findings.py  what the field claims, and what
    reach.py      how far gradients reach back                     was measured of it
    figures.py    the plots                           report.py    Markdown, HTML and JSON

Whatever is measured is written into `results/` of the comparison's folder as soon as it is known,
and is not measured again: the same command goes on where it was stopped.
"""

from transformer.reports.compare.comparison import compare

__all__ = ["compare"]
