"""``python -m app share``: a classifier as a folder of files that answer in a browser.

``share`` writes the folder, ``runtime`` gets ONNX Runtime for browsers, ``page/`` is the page.
"""
