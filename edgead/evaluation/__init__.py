"""A model scored on labelled images: figures, charts, galleries and the page that holds them."""
