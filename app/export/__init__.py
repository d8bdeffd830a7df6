"""Writes a bundle, and other formats, behind gates that compare them with the trained model.

``bundle_writer`` writes it, ``int8_export`` makes its int8 twin, ``formats`` writes other formats.
"""
