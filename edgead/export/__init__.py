"""From a trained model to one ONNX file: uint8 images in, map and score out."""
