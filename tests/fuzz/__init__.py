"""A seeded fuzzer of the readers of untrusted files: `python -m tests.fuzz --seconds 900`.

Each case is made from a whole input by a few mutations. It passes if the reader accepts it or raises an EdgeadError of
one printable line. It fails with any other exception, a crash, a hang, or much memory. A case follows from target, seed
and number alone, so a failure is run again by its number.

Add a target: a function in `tests/fuzz/targets.py`, with its whole inputs and mutations, in `TARGETS`; those of sinks
are in `tests/fuzz/sink_targets.py`.
"""
