"""What every other package shares: errors, messages, files, settings, the run folder.

Start with ``run_folder`` (what a run holds), ``config`` (every setting) and ``errors`` (how a
refusal reaches the user). Nothing here knows photos or networks.
"""
