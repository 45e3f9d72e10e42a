"""Everything once, on synthetic parts, and the page that shows it."""
