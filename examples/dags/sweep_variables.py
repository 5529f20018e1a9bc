"""
Once a day: deletes what jobs have left behind in Airflow Variables, when their DAG run is gone.

For Airflow 2.11 to 3.2; on 3.3 and later records are in Airflow's task state, and Airflow cleans up. On Airflow 3 it needs a
connection `airflow_api` to Airflow's own REST API: host (http://api-server:8080), login, password. Airflow 2 needs none.
"""

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import dag, task


@dag(schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), catchup=False, tags=["maintenance"])
def sweep_variables():
    @task
    def sweep() -> list[str]:
        from resumable.cleanup.variables import sweep_from_task

        return sweep_from_task("airflow_api")

    sweep()


sweep_variables()
