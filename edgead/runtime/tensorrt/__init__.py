"""TensorRT and TensorRT for RTX: the session, its engine, and the GPU that they use."""
