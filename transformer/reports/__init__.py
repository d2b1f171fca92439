"""Several runs side by side: trained, measured and written up in one report."""

from transformer.reports.compare import compare
from transformer.reports.table3 import table3

__all__ = ["compare", "table3"]
