"""RDS snapshots, copies and exports, QuickSight ingestions: the author's name is the job's. Whose is one that is there?"""

from __future__ import annotations

import pytest
from botocore import xform_name

from resumable import ConfigurationError
from resumable.cleanup.reach import adapter_of
from resumable.jobs.record import JobHandle
from resumable.operators.rds import RdsSnapshotCopy, ResumableRdsCreateDbSnapshotOperator
from tests.contract import aws_jobs
from tests.services import Refuse
from tests.support.aws_tasks import die_after, tasks
from tests.support.names import AirflowFailException

pytestmark = pytest.mark.usefixtures("no_waiting")

OPERATORS = {name: (ours, bench) for name, ours, _, bench, _ in aws_jobs.CASES}
SUBMITS = {
    "rds-export": "StartExportTask",
    "rds-snapshot": "CreateDBSnapshot",
    "rds-copy": "CopyDBSnapshot",
    "quicksight-ingestion": "CreateIngestion",
}
TAGGED = {"rds-cluster-snapshot": "CreateDBClusterSnapshot", "rds-cluster-copy": "CopyDBClusterSnapshot"}
IDENTIFIERS = {
    "rds-snapshot": "DBSnapshotIdentifier",
    "rds-cluster-snapshot": "DBClusterSnapshotIdentifier",
    "rds-copy": "TargetDBSnapshotIdentifier",
    "rds-cluster-copy": "TargetDBClusterSnapshotIdentifier",
    "rds-export": "ExportTaskIdentifier",
    "quicksight-ingestion": "IngestionId",
}
ALL = pytest.mark.parametrize("name", IDENTIFIERS)
UNTAGGED = pytest.mark.parametrize("name", SUBMITS)


@pytest.fixture
def run(monkeypatch):
    with tasks(OPERATORS, monkeypatch) as make:
        yield make


def names(server, name):
    return [job.body[IDENTIFIERS[name]] for job in server.all]


def somebody_elses(server, name, instance, **more):
    """A job of the author's name that another makes, by the same request as ours."""
    operator = instance.make()
    operation = {**SUBMITS, **TAGGED}[name]
    given = {
        "rds-export": lambda: {"SourceArn": operator.source_arn, "S3BucketName": "out", "ExportTaskIdentifier": "nightly"},
        "rds-snapshot": lambda: {"DBSnapshotIdentifier": "nightly", "DBInstanceIdentifier": operator.db_identifier},
        "rds-cluster-snapshot": lambda: {
            "DBClusterSnapshotIdentifier": "nightly",
            "DBClusterIdentifier": operator.db_identifier,
        },
        "rds-copy": lambda: {"TargetDBSnapshotIdentifier": "copy"},
        "rds-cluster-copy": lambda: {"TargetDBClusterSnapshotIdentifier": "copy"},
        "quicksight-ingestion": lambda: {"AwsAccountId": "123456789012", "DataSetId": "sales", "IngestionId": "nightly"},
    }[name]()
    getattr(server, xform_name(operation))({**given, **more})
    return server.all[-1]


@ALL
def test_the_first_job_has_the_authors_name_and_one_after_a_failure_has_another(run, name):
    server, instance = run(name)
    with pytest.raises(Exception, match="(?i)fail"):
        instance.attempt(listener=lambda _: [server.finish(job, server.failed) for job in server.running()])
    server.duration = 0
    instance.attempt()
    first, second = names(server, name)
    assert second.startswith(f"{first}-")
    assert len(second) == len(first) + 9


@ALL
def test_a_refused_request_uses_up_no_name(run, name):
    server, instance = run(name)
    server.fault({**SUBMITS, **TAGGED}[name], Refuse(403, {"message": "not today"}))
    with pytest.raises(Exception, match="not today"):
        instance.attempt()
    assert instance.record["state"] == "rejected"
    server.duration = 0
    instance.attempt()
    operator = instance.make()
    assert names(server, name) == [getattr(operator, type(operator)._resumable.service.name_argument)]


def test_long_names_leave_room_for_what_tells_them_apart(run):
    for name, length, long in (("rds-cluster-snapshot", 63, "x" * 63), ("rds-snapshot", 255, "x" * 255)):
        server, instance = run(name, db_snapshot_identifier=long)
        server.duration = 0
        instance.attempt()
        instance.clear()
        instance.attempt()
        first, second = names(server, name)
        assert first == long
        assert (len(second), "--" in second) == (length, False)


def test_an_edited_name_is_taken_as_it_is(run):
    server, instance = run("rds-snapshot")
    server.duration = 0
    instance.attempt()
    make, instance.make = instance.make, lambda: _edited(make())
    instance.clear()
    instance.attempt()
    assert names(server, "rds-snapshot") == ["nightly", "weekly"]


def _edited(operator):
    operator.db_snapshot_identifier = "weekly"
    return operator


@ALL
def test_a_name_that_is_taken_at_the_first_request_is_not_ours_however_young_its_job_is(run, name):
    server, instance = run(name)
    theirs = somebody_elses(server, name, instance)
    for _ in range(2):
        with pytest.raises(Exception, match="(?i)exists"):
            instance.attempt()
        assert instance.record["state"] == "rejected"
        assert instance.record["job"] is None
    assert server.all == [theirs]


@UNTAGGED
def test_in_doubt_a_job_of_that_name_from_before_is_not_ours(run, name):
    server, instance = run(name)
    die_after(instance, "store.set")
    somebody_elses(server, name, instance).created -= 3600
    with pytest.raises(Exception, match="(?i)exists"):
        instance.attempt()
    assert instance.record["state"] == "submitting"
    assert len(server.all) == 1


@pytest.mark.parametrize("name", TAGGED)
def test_in_doubt_a_tag_tells_ours_from_another_of_that_moment(run, name):
    server, instance = run(name)
    die_after(instance, "store.set")
    theirs = somebody_elses(server, name, instance, **{"Tags.Tag.1.Key": "team", "Tags.Tag.1.Value": "data"})
    with pytest.raises(Exception, match="(?i)exists"):
        instance.attempt()
    assert server.all == [theirs]


@pytest.mark.parametrize("name", TAGGED)
def test_in_doubt_a_tag_tells_ours_whatever_the_clocks_say(run, name):
    server, instance = run(name)
    die_after(instance, f"http {TAGGED[name]}")
    server.all[0].created -= 24 * 3600
    server.duration = 0
    instance.attempt()
    assert len(server.all) == 1
    assert instance.record["token"] in server.all[0].body.values()


@pytest.mark.parametrize("name", ["rds-snapshot", "rds-copy"])
def test_no_tag_is_added_where_it_would_keep_the_databases_own_away(run, name):
    server, instance = run(name)
    server.inherited, server.duration = {"owner": "finance"}, 0
    result = instance.attempt()
    assert not [key for key in server.all[0].body if key.startswith("Tags.Tag")]
    assert "finance" in result


def test_a_snapshot_of_another_database_is_not_ours(run):
    server, instance = run("rds-snapshot")
    die_after(instance, "store.set")
    somebody_elses(server, "rds-snapshot", instance, DBInstanceIdentifier="another")
    with pytest.raises(Exception, match="(?i)exists"):
        instance.attempt()


@pytest.mark.parametrize("name", ["rds-copy", "rds-cluster-copy"])
def test_a_copy_that_is_complete_is_never_deleted(run, name):
    server, instance = run(name)
    server.duration = 0
    instance.attempt()
    copy = RdsSnapshotCopy(instance.make())
    copy.cancel(copy.handle(instance.record["job"]))
    assert server.count("DeleteDBSnapshot") + server.count("DeleteDBClusterSnapshot") == 0
    assert instance.record["job"]["snapshot"] in server._known


def test_a_copy_in_a_state_that_nobody_knows_is_not_deleted(run):
    server, instance = run("rds-copy")
    die_after(instance, "http DescribeDBSnapshots")
    server.finish(server.all[0], "A_STATE_OF_NEXT_YEAR")
    copy = RdsSnapshotCopy(instance.make())
    with pytest.raises(RuntimeError, match="only a job that is under way may be stopped"):
        copy.cancel(copy.handle(instance.record["job"]))
    assert server.count("DeleteDBSnapshot") == 0


def test_a_clear_while_a_snapshot_is_created_is_refused_and_on_clear_reattach_waits_for_it(run):
    server, instance = run("rds-snapshot")
    die_after(instance, "http DescribeDBSnapshots")
    instance.clear()
    with pytest.raises(AirflowFailException, match="Nothing was submitted, the job runs on"):
        instance.attempt()
    assert (len(server.all), server.count("DeleteDBSnapshot")) == (1, 0)


def test_a_job_timeout_is_refused_where_nothing_stops_the_job():
    given = {"db_type": "instance", "db_identifier": "db", "db_snapshot_identifier": "nightly"}
    with pytest.raises(ConfigurationError, match="job_timeout"):
        ResumableRdsCreateDbSnapshotOperator(task_id="task", **given, resume_policy={"job_timeout": 3600})


def test_a_cancel_of_what_has_ended_is_no_error_and_of_what_runs_is_one(run):
    server, instance = run("quicksight-ingestion")
    die_after(instance, "http DescribeIngestion")
    adapter = adapter_of(instance.record["reach"])
    handle = JobHandle("quicksight", instance.record["job"], instance.record["place"])
    server.fault("CancelIngestion", Refuse(403, {"message": "denied"}))
    with pytest.raises(Exception, match="denied"):
        adapter.cancel(handle)
    server.finish(server.all[0])
    adapter.cancel(handle)
    server.forget()
    adapter.cancel(handle)


def test_how_an_ingestion_is_waited_for_is_no_part_of_its_spec(run):
    server, instance = run("quicksight-ingestion")
    die_after(instance, "http DescribeIngestion")
    make = instance.make

    def waits_otherwise():
        operator = make()
        operator.check_interval = 1
        return operator

    instance.make = waits_otherwise
    server.duration = 0
    instance.attempt()
    assert (len(server.all), server.count("CancelIngestion")) == (1, 0)


def test_a_signed_url_is_in_no_record_and_in_every_request(run):
    server, instance = run("rds-copy", pre_signed_url="https://signed")
    die_after(instance, "http CopyDBSnapshot")
    assert instance.record["params"]["TargetDBSnapshotIdentifier"] == "copy"
    assert "https://signed" not in str(instance.data)
    server.duration = 0
    instance.attempt()
    assert [call.body["PreSignedUrl"] for call in server.calls("CopyDBSnapshot")] == ["https://signed"] * 2
    assert len(server.all) == 1


@UNTAGGED
def test_a_name_that_another_has_is_told_with_what_to_do(run, name, caplog, capsys):
    server, instance = run(name)
    die_after(instance, "store.set")
    somebody_elses(server, name, instance).created -= 3600
    with pytest.raises(Exception, match="(?i)exists"):
        instance.attempt()
    said = caplog.text + capsys.readouterr().out  # by version of Airflow
    assert "which is not ours: it began before" in said
    assert "delete the task state key" in said
