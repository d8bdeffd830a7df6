"""The steps from a folder of labelled photos to a classifier that predicts."""
