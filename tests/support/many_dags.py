"""DAG files as a deployment has them by the hundred: the providers' operators, mapped, in groups, with defaults, subclassed."""

from __future__ import annotations

import random
from pathlib import Path

HEAD = """
from datetime import datetime, timedelta

from airflow.providers.amazon.aws.operators.athena import AthenaOperator
from airflow.providers.amazon.aws.operators.batch import BatchOperator
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator, EmrServerlessStartJobOperator
from airflow.providers.amazon.aws.operators.glue import GlueJobOperator
from airflow.providers.amazon.aws.operators.redshift_data import RedshiftDataOperator
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTrainingOperator
from airflow.providers.databricks.operators.databricks import (
    DatabricksNotebookOperator,
    DatabricksRunNowOperator,
    DatabricksSQLStatementsOperator,
    DatabricksSubmitRunOperator,
)
from airflow.providers.databricks.operators.databricks_workflow import DatabricksWorkflowTaskGroup

try:
    from airflow.sdk import DAG, TaskGroup, setup, task, teardown
except ImportError:
    from airflow.decorators import setup, task, teardown
    from airflow.models.dag import DAG
    from airflow.utils.task_group import TaskGroup


class Nightly(DatabricksSubmitRunOperator):
    def execute(self, context):
        return super().execute(context)


@task
def number(given):
    return given


@setup
def begin():
    return 1


@teardown
def end():
    return 2

"""

STEPS = "[{{'Name': 's{n}', 'ActionOnFailure': 'CONTINUE', 'HadoopJarStep': {{'Jar': 'x'}}}}]"

TASKS = (
    "DatabricksSubmitRunOperator(task_id='{id}', json={{'notebook_task': {{'notebook_path': '/{n}'}}}}, pool='default_pool')",
    "DatabricksSubmitRunOperator(task_id='{id}', tasks=[{{'task_key': 'a', 'notebook_task': {{}}}}], deferrable=True)",
    "DatabricksRunNowOperator(task_id='{id}', job_id={n}, notebook_params={{'day': '{{{{ ds }}}}'}}, retries=5)",
    "DatabricksRunNowOperator.partial(task_id='{id}', retries=2).expand(job_id=[1, 2, {n}])",
    "DatabricksNotebookOperator(task_id='{id}', notebook_path='/x', source='WORKSPACE', existing_cluster_id='c')",
    "DatabricksSQLStatementsOperator(task_id='{id}', statement='select {n}', warehouse_id='w')",
    "EmrAddStepsOperator(task_id='{id}', job_flow_id='j-{n}', steps=" + STEPS + ", wait_for_completion=True)",
    "EmrAddStepsOperator.partial(task_id='{id}', job_flow_id='j').expand(steps=[" + STEPS + "])",
    "EmrServerlessStartJobOperator(task_id='{id}', application_id='a', execution_role_arn='r', job_driver={{}},"
    " configuration_overrides={{}})",
    "GlueJobOperator(task_id='{id}', job_name='g{n}', script_location='s3://b/x.py', execution_timeout=timedelta(hours=2))",
    "AthenaOperator(task_id='{id}', query='select {n}', database='d', output_location='s3://b/o')",
    "BatchOperator(task_id='{id}', job_name='b{n}', job_definition='d', job_queue='q')",
    "EcsRunTaskOperator(task_id='{id}', cluster='c', task_definition='t', overrides={{}})",
    "RedshiftDataOperator(task_id='{id}', database='d', sql='select {n}')",
    "SageMakerTrainingOperator(task_id='{id}', config={{'TrainingJobName': 't{n}'}})",
    "Nightly(task_id='{id}', json={{}})",
    "number.override(task_id='{id}')({n})",
)

WORKFLOW = """
    with DatabricksWorkflowTaskGroup(group_id="wf{n}", databricks_conn_id="databricks_default"):
        one = DatabricksNotebookOperator(task_id="one", notebook_path="/1", source="WORKSPACE", job_cluster_key="k")
        two = DatabricksNotebookOperator(task_id="two", notebook_path="/2", source="WORKSPACE", job_cluster_key="k")
        one >> two
"""


def text_of(number: int) -> str:
    """The text of one DAG file, always the same for one number."""
    chosen = random.Random(number)
    defaults = chosen.choice(("{}", "{'retries': 3}", "{'owner': 'sales', 'queue': 'big', 'aws_conn_id': 'other'}"))
    tags = chosen.choice(("[]", "['nightly']", "['nightly', 'sales']"))
    common = f"start_date=datetime(2026, 1, 1), schedule=None, default_args={defaults}, tags={tags}"
    lines = [HEAD, f"with DAG('dag_{number}', {common}):"]
    names = []
    for place in range(chosen.randint(2, 6)):
        made = chosen.choice(TASKS).format(id=f"t{place}", n=chosen.randint(1, 999))
        if place % 3 == 2:
            lines += [f"    with TaskGroup('g{place}'):", f"        t{place} = {made}"]
        else:
            lines.append(f"    t{place} = {made}")
        names.append(f"t{place}")
    lines.append("    " + " >> ".join(names))
    if chosen.random() < 0.3:
        lines.append(f"    begin() >> {names[0]}")
        lines.append(f"    {names[-1]} >> end()")
    if chosen.random() < 0.2:
        lines.append(WORKFLOW.format(n=number))
    return "\n".join(lines) + "\n"


def write(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"dag_{number}.py").write_text(text_of(number))
