"""CUDA implementation of the operator edgead::AnomalyMap: device code, launcher, and compilation at run time."""
