"""A bundle as the files of other servers: Triton Inference Server and DeepStream."""
