"""Demo: every step once on synthetic parts, and a page with the results."""
