"""What a mapped task was given of its list, asked of Airflow's own mapped tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.own_airflow import printed_by

pytestmark = pytest.mark.slow

DAG_FILE = """
import json
from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG, get_current_context, task, task_group

from resumable import host
from resumable.host import versions

PythonOperator = versions.first_of("PythonOperator", "airflow.providers.standard.operators.python", "airflow.operators.python")

def see(*given, **more):
    return [get_current_context()["ti"].map_index, host.mapped_item(get_current_context())]

with DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc)) as dag:
    @task
    def shops():
        return ["a", "b"]

    @task
    def several():
        return [{"shop": "a", "n": 1}, {"shop": "b", "n": 2}]

    @task
    def load(shop=None, n=0, when=None):
        return see()

    load.override(task_id="a_list").partial(when="{{ ts }}").expand(shop=["a", "b"])
    load.override(task_id="upstream").partial(when=shops()).expand(shop=shops())
    load.override(task_id="upstream_changed").expand(shop=shops().map(lambda name: name.upper()))
    load.override(task_id="kwargs").expand_kwargs([{"shop": "a", "n": 1}, {"shop": "b", "n": 2}])
    load.override(task_id="kwargs_upstream").partial(when="{{ ts }}").expand_kwargs(several())
    PythonOperator.partial(task_id="operator", python_callable=see).expand(op_kwargs=several())
    PythonOperator.partial(task_id="operator_kwargs", python_callable=see).expand_kwargs([{"op_args": [1]}, {"op_args": [2]}])
    load.override(task_id="plain")(shop="a")

    @task_group
    def group(shop):
        load.override(task_id="load")(shop)
        load.override(task_id="told_nothing")()

    group.expand(shop=shops())
"""

RUN_IT = """
import json
from airflow.utils.db import initdb

initdb()
import mapped
from airflow.models import xcom
from airflow.utils.session import create_session
from sqlalchemy import select

mapped.dag.test()
XCom = getattr(xcom, "XComModel", None) or xcom.XCom
with create_session() as session:
    found = session.execute(select(XCom.task_id, XCom.value).where(XCom.key == "return_value")).all()
print("FOUND" + json.dumps([[task, json.loads(value) if isinstance(value, str | bytes) else value] for task, value in found]))
"""


def test_a_mapped_task_knows_what_it_was_given_of_the_list_however_it_is_mapped(tmp_path: Path) -> None:
    lines = printed_by(RUN_IT, tmp_path, mapped=DAG_FILE)
    line = next(line for line in reversed(lines) if line.startswith("FOUND"))
    found: dict[str, list[object]] = {}
    for task, given in sorted(json.loads(line.removeprefix("FOUND")), key=str):
        if isinstance(given[0], int):
            found.setdefault(task, []).append(given[1])
    both = [{"shop": "a", "n": 1}, {"shop": "b", "n": 2}]
    assert found == {
        "a_list": [{"shop": "a"}, {"shop": "b"}],
        "upstream": [{"shop": "a"}, {"shop": "b"}],
        "upstream_changed": [{"shop": "A"}, {"shop": "B"}],
        "kwargs": both,
        "kwargs_upstream": both,
        "operator": [{"op_kwargs": one} for one in both],
        "operator_kwargs": [{"op_args": [1]}, {"op_args": [2]}],
        "plain": [{}],
        "group.load": [{"op_args.0": "a"}, {"op_args.0": "b"}],
        "group.told_nothing": [{}, {}],
    }
