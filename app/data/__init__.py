"""From a folder on disk to labelled, checked, split and decoded photos; no network library.

``folder_layout`` finds files and labels, ``audit`` gives each a verdict, ``splits`` divides them,
``manifest`` lists them all. ``photo_file`` reads a file and checks its headers, ``decode`` makes
pixels of it, ``augmentation`` makes views of pixels. ``sets`` downloads or draws photos.
"""
