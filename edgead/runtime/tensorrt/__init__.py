"""TensorRT and TensorRT for RTX: the session, its engine, and the GPU beneath them."""
