"""The CUDA side of the operator edgead::AnomalyMap: device code, its launcher, and its compilation at run time."""
