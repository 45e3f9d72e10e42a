"""From a trained model to one ONNX file: uint8 pictures in, map and score out."""
