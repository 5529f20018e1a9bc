"""The Airflow and the services of the crash tests."""

from tests.crash.conftest import airflow, remote, start_airflow  # noqa: F401
