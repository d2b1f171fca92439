"""`transformer table3`: AIAYN's Table 3 again, on other data and another budget."""

from transformer.reports.table3.report import Printed
from transformer.reports.table3.table3 import RowOfTable, table3

__all__ = ["Printed", "RowOfTable", "table3"]
