"""Several runs side by side: trained, measured and written up in one report."""
