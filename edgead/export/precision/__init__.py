"""Graphs in lower precisions: float16, INT8, and what INT8 needs to be measured."""
