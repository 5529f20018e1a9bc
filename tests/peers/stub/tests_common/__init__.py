"""Stands in for Airflow's own test helpers, which no package holds: the few of them that the providers' operator tests use."""
