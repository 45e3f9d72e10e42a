"""Benchmark of a model on this machine, for `edgead bench`: three clocks, and a comparison with an older report.

`clocks` measures, `report` is the record and its text, `comparison` finds regressions, `machine` reads the clock rate
and the power of the processor, `chart` draws, and `run` brings them together.
"""
