"""Synthetic parts, their defects and a conveyor: a dataset for the demo and the tests, decided by a seed."""
