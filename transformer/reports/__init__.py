"""Several runs side by side: trained, measured and written up in one report."""

from transformer.reports.compare import compare

__all__ = ["compare"]
