"""From a folder on disk to labelled, checked, split and decoded photos; no network library.

``folder_layout`` finds files and labels, ``audit`` decodes each one, ``splits`` divides them,
``manifest`` is the list of all. ``decode`` makes pixels of a file, ``augmentation`` makes views
of pixels. ``sets`` downloads or draws photos to try with.
"""
