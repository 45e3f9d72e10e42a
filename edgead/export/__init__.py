"""Export of a trained model to one ONNX file, which takes uint8 images and gives anomaly map and score."""
