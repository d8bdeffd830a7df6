"""VGG, its pretrained weights, the classifier built on it, and its ONNX graph.

``classifier.build_classifier`` is what others use; ``onnx_graph.to_onnx`` writes it as a file.
"""
