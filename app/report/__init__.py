"""A finished run's folder in, what people read out: report, model card, comparison.

``results`` reads a run; ``report``, ``model_card`` and ``comparison_page`` write pages of it. Their
words are in ``templates``, which ``html`` fills in.
"""
