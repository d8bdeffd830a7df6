"""Features: the activations of the frozen layers at a cut, computed once for each view.

``dataset`` is the door. An ``extractor`` computes them, or ``ray_features`` on other machines; a
``store`` keeps those of one cut in files (``shards``), ``cache_folder`` limits all stores together,
``batches`` hands them to training.
"""
