"""The steps from a folder of labelled photos to a classifier that predicts."""

import os

# ONNX Runtime sends usage statistics and keeps a device's number on the disk, unless this is set
# before it is imported; its function for switching that off comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
