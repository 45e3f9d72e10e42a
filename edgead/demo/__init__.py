"""Everything once, on drawn parts, and the page that shows it."""
