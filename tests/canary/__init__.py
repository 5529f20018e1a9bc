"""What this library relies upon in Airflow and in the providers beyond their documented interfaces: `python3 dev.py canary`."""
