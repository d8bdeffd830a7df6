"""The page for people: ask, teach, review and share. ``python -m app studio``.

``studio`` is the command and ``application`` has the routes. ``answering`` is behind the tab Ask;
``teaching``, ``lesson`` and ``backbone`` are behind Teach. ``jobs`` runs the other commands.
"""
