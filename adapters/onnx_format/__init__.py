"""ONNX files: loading, checking, saving and running them."""
