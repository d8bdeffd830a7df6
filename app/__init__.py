"""One road from a folder of labelled photos to a classifier that answers, step by step."""
