"""Activations of the frozen backbone, computed once for each view and kept on disk.

``extractor`` computes them, ``cache`` keeps them in ``shards``, ``dataset`` hands them to training
as batches (``batches``) or by photo (``labelled``).
"""
