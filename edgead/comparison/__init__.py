"""Methods side by side over datasets and seeds: the grid of runs, its figures and its page."""
