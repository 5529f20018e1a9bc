"""The DAGs with ``wait="defer"``."""

MANY = 24
"""Tasks that wait together, of which one is stopped."""
