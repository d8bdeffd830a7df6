"""What learns: the linear probe, then fine-tuning, stage by stage, and how a run resumes.

``linear_probe`` solves the first stage, ``finetune`` trains the others,
``fit_decision`` fits temperature and thresholds on validation.
"""
