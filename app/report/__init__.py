"""A finished run's folder in, what people read out: report, notebook, model card, comparison.

``results`` reads a run; ``report``, ``model_card`` and ``compare`` write pages of it. Their words
are in ``templates``, which ``html`` fills in.
"""
