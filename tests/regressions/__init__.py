"""Scripts of histories that broke something once, each found and shrunk by a generator (``python3 dev.py night --keep FILE``)."""
