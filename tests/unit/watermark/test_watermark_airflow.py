"""What Airflow's own code does to the state of an asset; the documentation names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resumable import host
from tests.support.own_airflow import printed_by

pytestmark = pytest.mark.slow

SCRIPT = """
import json
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.asset import (
    AssetActive, AssetModel, TaskInletAssetReference, TaskOutletAssetReference, remove_references_to_deleted_dags
)
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import select

initdb()
references = {"inlets": [TaskInletAssetReference], "outlets": [TaskOutletAssetReference]}
references["both"] = references["inlets"] + references["outlets"]
for name, kinds in references.items():
    with create_session() as session:
        session.merge(DagBundleModel(name="bundle"))
        session.flush()
        session.add(DagModel(dag_id=name, bundle_name="bundle", fileloc=name, is_stale=False))
        asset = AssetModel(name=name, uri=name, group="asset")
        session.add(asset)
        session.flush()
        session.add(AssetActive.for_asset(asset))
        session.add_all(kind(asset_id=asset.id, dag_id=name, task_id="load") for kind in kinds)
        session.add(AssetStateStoreModel(asset_id=asset.id, key="mark", value="1"))

def with_state():
    SchedulerJobRunner.__new__(SchedulerJobRunner)._update_asset_orphanage()
    with create_session() as session:
        assets = select(AssetModel.name).join(AssetStateStoreModel, AssetStateStoreModel.asset_id == AssetModel.id)
        return sorted(session.scalars(assets))

before = with_state()
with create_session() as session:
    for dag in session.scalars(select(DagModel)):
        dag.is_stale = True  # its file is gone, or does not parse
with create_session() as session:
    remove_references_to_deleted_dags(session)
print(json.dumps([before, with_state()]))
"""


@pytest.mark.skipif(not host.has_task_state(), reason="assets have state from Airflow 3.3 on")
def test_the_mark_outlives_a_dag_file_that_is_gone_for_a_while_if_the_asset_is_an_inlet(tmp_path: Path) -> None:
    before, after = json.loads(printed_by(SCRIPT, tmp_path)[-1])
    assert before == ["both", "inlets", "outlets"]
    assert after == ["both", "inlets"]


DAG_FILE = """
from datetime import datetime, timezone

from resumable import Watermark, host
from tests.support.names import DAG, get_current_context, task

def read(asset):
    with Watermark("n", asset=asset, start=0, until=get_current_context()["dag_run"].conf["until"]) as mark:
        mark.advance()
    return [mark.since, mark.until]

with DAG("both", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), max_active_runs=1) as dag:
    @task
    def of_task():
        return read(None)

    of_task()

    if host.has_task_state():
        from airflow.sdk import Asset

        HOURS = Asset("hours")

        @task(inlets=[HOURS])
        def of_asset():
            return read(HOURS)

        of_asset()
"""

RUN_IT = """
import json, sys
from datetime import datetime, timezone
from airflow.utils.db import initdb

initdb()
import both
from airflow.models import xcom
from airflow.utils.session import create_session
from resumable import host
from sqlalchemy import select

moment = "logical_date" if host.has_sdk() else "execution_date"
for day, until in enumerate((10, 25, 40), 1):
    both.dag.test(run_conf={"until": until}, **{moment: datetime(2026, 1, day, tzinfo=timezone.utc)})
XCom = getattr(xcom, "XComModel", None) or xcom.XCom
with create_session() as session:
    found = session.execute(select(XCom.task_id, XCom.value).where(XCom.key == "return_value")).all()
print(json.dumps(sorted([task, json.loads(value) if isinstance(value, str | bytes) else value] for task, value in found)))
"""


def test_a_mark_goes_from_run_to_run_in_airflows_own_asset_state_and_variables(tmp_path: Path) -> None:
    lines = printed_by(RUN_IT, tmp_path, both=DAG_FILE)
    found = json.loads(next(line for line in reversed(lines) if line.startswith("[[")))  # Airflow logs there
    tasks = ("of_asset", "of_task") if host.has_task_state() else ("of_task",)
    assert found == [[task, given] for task in tasks for given in ([0, 10], [10, 25], [25, 40])]
