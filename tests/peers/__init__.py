"""The providers' own unit tests, run on our operators: `python3 dev.py peers`."""
