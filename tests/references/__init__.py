"""Slow float64 references written from the formulas of the papers, independent of the package they check."""
