"""
What a task writes into its own state is nobody's word: the sweep runs beside the metadata database, with more rights than a task.

Against the tables of a real Airflow. Each guard is taken away once, to see that the attack works without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resumable import ConfigurationError, host
from resumable.cleanup import reach, sweep
from resumable.cleanup.reach import adapter_of
from resumable.cleanup.sweep import Sweep
from resumable.cleanup.table import TaskStateTable
from resumable.jobs import service
from resumable.jobs.methods import OperatorMethods
from resumable.jobs.record import JobHandle
from tests.support.swept import Cloud, Train, record

pytestmark = pytest.mark.skipif(not host.has_task_state(), reason="there is no task state table to sweep")

BY_USER = {("etl", "run", "job", -1)}
REACH = {"operator": f"{Train.__module__}:Train", "conn_id": "trainer"}


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch) -> Any:
    from tests.support import database

    database.empty()
    Cloud.states, Cloud.cancelled, Cloud.after_a_cancel = {7: "RUNNING"}, [], "FAILED"
    monkeypatch.setattr(sweep, "_sleep", lambda seconds: None)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__SWEEP_MODULES", Train.__module__)
    return database


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder on the path of this process, as ``PYTHONPATH`` or Airflow's own folders for plugins are."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(str(tmp_path))]:
        del sys.modules[name]


def kept(**changes: Any) -> dict[str, Any]:
    return replace(record(reach=REACH), **changes).to_json()


@pytest.mark.parametrize("is_guarded", [True, False])
@pytest.mark.parametrize("by_user", [(), BY_USER])
def test_a_record_has_no_module_imported_that_the_deployment_does_not_name(
    is_guarded: bool, by_user: Any, database: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "everybodys.py").write_text(f"open({str(folder / 'PROOF')!r}, 'w').write('imported')")
    database.put("etl", "run", "job", "failed", kept(reach={"operator": "everybodys:Train", "conn_id": "trainer"}))
    if not is_guarded:
        monkeypatch.setattr(reach, "_is_of", lambda *_: True)
    assert Sweep().run(by_user=by_user) == {"left": 1}
    assert (folder / "PROOF").exists() is not is_guarded


@pytest.mark.parametrize(
    "operator",
    [
        "resumable.operators.emr:resumable._extras.os.system",
        "resumable.operatorsx:Train",
        "resumable:ResumableMixin",
        "resumable.jobs.mixin:ResumableMixin",
        ":Train",
        "",
        5,
        ["resumable.operators.emr:ResumableEmrAddStepsOperator"],
    ],
)
def test_a_record_has_no_class_used_that_is_no_operator_of_its_module(operator: Any) -> None:
    assert adapter_of({**REACH, "operator": operator}) is None


@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_clean_up_is_none_that_an_allowed_module_has_only_imported(
    is_guarded: bool, database: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cleanups.py").write_text("import shutil\nfrom shutil import rmtree")
    (folder / "precious").mkdir()
    monkeypatch.setenv("AIRFLOW__RESUMABLE__CLEANUP_MODULES", "cleanups")
    made = {"version": 1, "state": "made", "value": str(folder / "precious")}
    for n, path in enumerate(("cleanups:rmtree", "cleanups:shutil.rmtree")):
        database.put("etl", "run", f"t{n}", "failed", {**made, "cleanup": path}, key="resumable.once.x")
    if not is_guarded:
        monkeypatch.setattr(reach, "_is_its_own", lambda *_: True)
    Sweep().run()
    assert (folder / "precious").exists() is is_guarded


class ByHost(Train):
    """One whose author named what belongs into a connection."""

    reach_fields = ("conn_id", "host", "base_url", "proxies", "verify", "role_arn", "target")

    def __init__(self, *, target: str = "prod", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target, self.host, self.verify = target, "internal", True


@pytest.mark.parametrize("is_guarded", [True, False])
def test_no_host_proxy_role_or_verify_comes_from_a_record(is_guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_guarded:
        monkeypatch.setattr(service, "_may_be_read", lambda *_: True)
    monkeypatch.setenv("AIRFLOW__RESUMABLE__SWEEP_MODULES", __name__)
    forged = {"host": "evil", "base_url": "http://evil", "proxies": {"https": "evil"}, "verify": False, "role_arn": "arn:evil"}
    reach = {"operator": f"{__name__}:ByHost", "conn_id": "trainer", "target": "http://evil", **forged}
    operator: Any = adapter_of(reach).operator  # type: ignore[union-attr]
    assert (vars(operator).keys() & forged.keys() == set()) is is_guarded
    assert operator.target == ("prod" if is_guarded else "http://evil")


def test_none_of_them_is_kept_in_a_record_either() -> None:
    assert OperatorMethods(ByHost(task_id="t", conn_id="trainer")).connection() == {
        "operator": f"{__name__}:ByHost",
        "conn_id": "trainer",
        "target": "prod",
    }


def test_an_aws_job_is_reached_by_the_name_of_a_connection_and_a_region_alone() -> None:
    pytest.importorskip("airflow.providers.amazon")
    path = "resumable.operators.emr:ResumableEmrAddStepsOperator"
    config = {"proxies": {"https": "http://evil"}}
    forged = {"verify": False, "botocore_config": config, "endpoint_url": "http://evil", "role_arn": "arn:evil"}
    adapter: Any = adapter_of({"operator": path, "aws_conn_id": None, "region_name": "eu-west-1", **forged})
    assert "evil" not in adapter.hook.conn.meta.endpoint_url
    assert not adapter.hook.conn.meta.config.proxies
    assert adapter.hook.verify is None
    for region in ("evil.example.com/", "eu-west-1@evil", "EU", "", 5, {"a": 1}):
        with pytest.raises(ConfigurationError, match="region"):
            adapter_of({"operator": path, "aws_conn_id": None, "region_name": region})


def test_ids_of_another_shape_are_an_error_of_their_row_and_reach_no_other_job(database: Any) -> None:
    pytest.importorskip("airflow.providers.amazon")
    reach = {"operator": "resumable.operators.emr:ResumableEmrAddStepsOperator", "aws_conn_id": None, "region_name": "eu-west-1"}
    odd = replace(record(service="emr", reach=reach), handle=JobHandle("emr", {"cluster": ["*"]}, {"region": "eu-west-1"}))
    database.put("etl", "run", "odd", "failed", odd.to_json())
    database.put("etl", "run", "job", "failed", kept())
    assert Sweep().run(by_user=[*BY_USER, ("etl", "run", "odd", -1)]) == {"failed": 1, "stopped": 1}


def test_rows_are_found_by_what_an_open_record_has_whatever_else_stands_in_them(database: Any) -> None:
    """``left`` and ``closed_at`` may be words of a request as well: a record in doubt keeps it."""
    database.put("etl", "run", "in_doubt", "failed", kept(handle=None, params={"closed_at": 1, "left": 'the "closed_at": join'}))
    database.put("etl", "run", "in_text", "failed", json.dumps(json.dumps(kept())))
    database.put("etl", "run", "told", "failed", {**kept(), "state": "cancelled"})
    database.put("etl", "run", "closed", "failed", {**kept(), "state": "failed", "closed_at": "2026-01-01T00:00:00+00:00"})
    database.put("etl", "run", "runs", "running", kept())
    database.put("etl", "run", "x", "failed", {"submitted": "submitted"}, key="somebodys")
    database.put("etl", "run", "y", "failed", {"state": "made", "cleanup": "x"}, key="resumableXonceXx")
    assert sorted(row.task_id for row in TaskStateTable().ended()) == ["in_doubt", "in_text", "told"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_records_that_a_workers_backend_keeps_are_reported_once_and_fail_nothing(
    wrapped: bool, database: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(5):
        reference = {"__airflow_state_ref__": f"s3://bucket/{n}" if n else json.dumps(kept())}
        reference = {"resumable_slot": f"resumable.{n}"} if n == 2 else reference
        database.put("etl", f"run{n}", "job", "failed", json.dumps(json.dumps(reference)) if wrapped else reference)
    done = Sweep()
    assert done.run(by_user=[("etl", f"run{n}", "job", -1) for n in range(5)]) == {"left": 5}
    assert done.unsettled == set()
    assert len([line for line in caplog.messages if "state_store_backend" in line]) == 1


# -- two teams ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def teams(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """DAG ``a_etl`` of team a, ``b_etl`` of team b; a connection of each, one of nobody."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    for name in ("a", "b"):
        database.put_team(f"team_{name}", f"{name}_etl")
        database.put_connection(f"of_{name}", name, f"team_{name}")
    database.put_connection("of_all", "all")


class ByConnection(Train):
    """One that asks for its connection, as hooks do."""

    def cancel_job(self, external_id: Any, context: Any) -> None:
        from airflow.sdk import BaseHook

        Cloud.cancelled.append((external_id, BaseHook.get_connection(self.conn_id).host))
        Cloud.states[external_id] = "FAILED"


@pytest.mark.usefixtures("teams")
@pytest.mark.parametrize(
    ("conn_id", "found", "host"),
    [
        ("of_a", {"stopped": 1}, "a"),
        ("of_all", {"stopped": 1}, "all"),
        ("of_b", {"failed": 1}, None),
        ("no_such", {"failed": 1}, None),
        (None, {"failed": 1}, None),
        ("", {"failed": 1}, None),
    ],
)
def test_with_multi_team_a_job_is_reached_by_a_connection_that_the_dags_own_tasks_may_use(
    conn_id: Any, found: Any, host: Any, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not found some hooks replace by the server's own credentials."""
    monkeypatch.setenv("AIRFLOW__RESUMABLE__SWEEP_MODULES", __name__)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    reach = {"operator": f"{__name__}:ByConnection", "conn_id": conn_id}
    forged = replace(record(reach=reach, service="ByConnection"), handle=JobHandle("ByConnection", 7))
    database.put("a_etl", "run", "job", "failed", forged.to_json())
    assert Sweep().run(by_user=[("a_etl", "run", "job", -1)]) == found
    assert Cloud.cancelled == ([(7, host)] if host else [])
