"""Stand-ins for libraries and hardware that this machine may not have: CUDA, its kernels, TensorRT."""
