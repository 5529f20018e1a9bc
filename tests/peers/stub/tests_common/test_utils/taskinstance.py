from __future__ import annotations

from datetime import datetime, timezone
from unittest import mock

from airflow import models
from airflow.sdk.execution_time import macros


class TaskInstance:
    def __init__(self, task, run_id="run", dag_version_id=None):
        self.task, self.run_id, self.dag_version_id = task, run_id, dag_version_id
        self.dag_id, self.task_id, self.map_index = task.dag_id, task.task_id, -1
        self.try_number, self.max_tries, self.stats_tags = 1, 0, {}
        self.dag_run = None

    @property
    def xcom_push(self):
        return models.TaskInstance.xcom_push if _is_mocked(models.TaskInstance.xcom_push) else lambda *_, **__: None

    @property
    def xcom_pull(self):
        return models.TaskInstance.xcom_pull if _is_mocked(models.TaskInstance.xcom_pull) else lambda *_, **__: None

    def render_templates(self):
        return render_template_fields(self, self.task)


def _is_mocked(method):
    return isinstance(method, mock.NonCallableMock)


def create_task_instance(task, run_id="run", dag_version_id=None):
    return TaskInstance(task, run_id, dag_version_id)


def get_template_context(ti, task):
    date = getattr(ti.dag_run, "logical_date", None) or datetime(2026, 1, 1, tzinfo=timezone.utc)
    return {
        "ti": ti,
        "task_instance": ti,
        "task": task,
        "dag": task.dag,
        "dag_run": ti.dag_run,
        "logical_date": date,
        "ds": date.strftime("%Y-%m-%d"),
        "macros": macros,
        "params": dict(task.params),
    }


def render_template_fields(ti, task):
    task.render_template_fields(get_template_context(ti, task))
    return task
