"""What Airflow's own code does to the state of an asset; the documentation names it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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


def test_the_mark_outlives_a_dag_file_that_is_gone_for_a_while_if_the_asset_is_an_inlet(tmp_path: Path) -> None:
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert before == ["both", "inlets", "outlets"]
    assert after == ["both", "inlets"]
