"""Stand-ins for libraries and hardware that a machine may lack: CUDA, its kernels, TensorRT."""
