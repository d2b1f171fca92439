"""`transformer table3`: AIAYN's Table 3 again, on other data and another budget."""

from transformer.reports.table3.table3 import table3

__all__ = ["table3"]
