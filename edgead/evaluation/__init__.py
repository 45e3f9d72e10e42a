"""Evaluation of a model on labelled images: metrics, charts, galleries and the report page."""
