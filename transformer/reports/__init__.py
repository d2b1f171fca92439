"""Several runs side by side: trained, measured and written up in one report."""

from transformer.reports.compare import compare
from transformer.reports.table3 import Printed, RowOfTable, table3

__all__ = ["Printed", "RowOfTable", "compare", "table3"]
