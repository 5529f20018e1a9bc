from airflow.providers.standard.operators.empty import EmptyOperator  # noqa: F401
from airflow.sdk import timezone  # noqa: F401
