"""Synthetic parts, their defects and a conveyor, for the demo and the tests; a seed determines all of them."""
