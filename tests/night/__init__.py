"""What goes on all night with fresh seeds: `python3 dev.py night`."""
