"""Arrays in, judgements out: scores, calibration, decision, novelty, label issues, paired tests.

Nothing here reads a photo or runs a network; every function can be tried with a few numbers.
"""
