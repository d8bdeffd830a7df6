"""A bundle and photos in, predictions out; what ``predict.py`` and the service run, without Keras.

``bundle_format`` describes a bundle, ``predictor`` answers from it, ``heatmap`` shows why.
"""
