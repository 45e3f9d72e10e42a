"""Graphs in lower precisions: float16 and INT8, and the measurements that INT8 needs."""
