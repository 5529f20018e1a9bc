"""Bedrock, Comprehend, Glue data quality, RDS exports: the traps of each, beside what the contract shows of all."""

from __future__ import annotations

import pytest

from tests.contract import aws_jobs
from tests.services import Refuse
from tests.support.aws_tasks import die_after, tasks

pytestmark = pytest.mark.usefixtures("no_waiting")

BOTH = pytest.mark.parametrize("mode", [{}, {"deferrable": True}], ids=["sync", "deferrable"])
OPERATORS = {name: (ours, bench) for name, ours, _, bench, _ in aws_jobs.CASES}


@pytest.fixture
def run(monkeypatch):
    with tasks(OPERATORS, monkeypatch) as make:
        yield make


def service_of(operator):
    return type(operator)._resumable.service(operator)


SUBMITS = {"bedrock-batch-inference": "CreateModelInvocationJob", "bedrock-customize-model": "CreateModelCustomizationJob"}


@pytest.mark.parametrize("repeats_arn", [True, False], ids=["answer names the job", "answer names none"])
@pytest.mark.parametrize("name", SUBMITS)
def test_bedrock_a_repeated_request_takes_up_its_job_whatever_it_is_answered(run, name, repeats_arn):
    server, instance = run(name)
    server.repeats_arn = repeats_arn
    die_after(instance, f"http {SUBMITS[name]}")
    server.duration = 0
    assert instance.attempt() == server.all[0].id
    assert len(server.all) == 1


@pytest.mark.parametrize("name", SUBMITS)
def test_bedrock_a_token_that_is_forgotten_makes_no_second_job_of_the_same_name(run, name):
    server, instance = run(name)
    die_after(instance, f"http {SUBMITS[name]}")
    server.all[0].token = "forgotten"
    server.duration = 0
    assert instance.attempt() == server.all[0].id
    assert len(server.all) == 1


@pytest.mark.parametrize("name", SUBMITS)
def test_bedrock_names_fit_and_a_job_after_a_failure_has_another(run, name):
    server, instance = run(name, job_name="x" * 63)
    with pytest.raises(Exception, match="(?i)fail"):
        instance.attempt(listener=lambda _: [server.finish(job, "Failed") for job in server.running()])
    server.duration = 0
    instance.attempt()
    names = [job.body["jobName"] for job in server.all]
    assert len(set(names)) == 2
    assert max(map(len, names)) <= 63


def test_bedrock_a_cancel_of_a_job_that_has_ended_is_no_error(run):
    server, instance = run("bedrock-batch-inference")
    server.duration = 0
    instance.attempt()
    job = service_of(instance.make())
    job.cancel(job.handle(instance.record["job"]))
    assert server.count("StopModelInvocationJob") == 1


def test_bedrock_a_throughput_whose_repeated_request_is_ignored_is_the_one_that_is_taken_up(run):
    server, instance = run("bedrock-provisioned-throughput")
    die_after(instance, "http CreateProvisionedModelThroughput")
    server.duration = 0
    assert instance.attempt() == server.all[0].id
    assert len(server.all) == 1


def test_comprehend_a_job_without_a_name_is_asked_for_twice_in_the_same_words(run):
    server, instance = run("comprehend-pii")
    die_after(instance, "http StartPiiEntitiesDetectionJob")
    instance.data["resumable"].pop("params", None)  # as for a request too large to keep
    server.duration = 0
    instance.attempt()
    first, second = (call.body for call in server.calls("StartPiiEntitiesDetectionJob"))
    assert first == second
    assert first["JobName"].startswith("start_pii_entities_detection_job-")


@BOTH
@pytest.mark.parametrize("fails", [True, False])
def test_comprehend_warnings_are_a_failure_only_where_the_author_says_so(run, mode, fails):
    server, instance = run("comprehend-classifier", fail_on_warnings=fails, **mode)
    warned = {"listener": lambda _: [server.finish(job, "TRAINED_WITH_WARNING") for job in server.running()]}
    if not fails:
        assert instance.attempt(**warned) == server.all[0].id
        return
    with pytest.raises(Exception, match="Warnings"):
        instance.attempt(**warned)
    assert instance.record["state"] == "failed"
    server.duration = 0
    instance.attempt()
    assert len(server.all) == 2


@BOTH
def test_glue_rules_that_failed_fail_the_try_and_the_retry_evaluates_anew(run, mode):
    server, instance = run("glue-data-quality-evaluation", **mode)
    server.rules, server.duration = ["PASS", "FAIL"], 0
    with pytest.raises(Exception, match="one or more rules"):
        instance.attempt()
    assert instance.record["state"] == "failed"
    server.rules = ["PASS"]
    instance.attempt()
    assert len(server.all) == 2


@BOTH
def test_glue_rules_that_failed_are_no_failure_where_the_author_says_so(run, mode):
    server, instance = run("glue-data-quality-evaluation", verify_result_status=False, **mode)
    server.rules, server.duration = ["FAIL"], 0
    assert instance.attempt() == server.all[0].id


@pytest.mark.parametrize("died_in", ["Get", "Start"], ids=["the wait", "the submit"])
def test_glue_a_run_that_exists_does_not_fail_because_its_rules_are_gone(run, died_in):
    server, instance = run("glue-data-quality-evaluation")
    die_after(instance, f"http {died_in}DataQualityRulesetEvaluationRun")
    server.has_ruleset, server.duration = False, 0
    instance.attempt()
    assert len(server.all) == 1


@pytest.mark.parametrize("died_in", ["DescribeExportTasks", "StartExportTask"])
def test_rds_an_export_of_a_snapshot_that_another_account_shares_is_reattached_to(run, died_in):
    server, instance = run("rds-export", source_arn="arn:aws:rds:us-east-1:999999999999:snapshot:shared")
    die_after(instance, f"http {died_in}")
    server.duration = 0
    instance.attempt()
    assert len(server.all) == 1


def test_rds_the_first_export_keeps_its_identifier_and_one_after_a_failure_has_another(run):
    server, instance = run("rds-export")
    with pytest.raises(Exception, match="is failed"):
        instance.attempt(listener=lambda _: [server.finish(job, "FAILED") for job in server.running()])
    server.duration = 0
    instance.attempt()
    first, second = [job.id for job in server.all]
    assert first == "nightly"
    assert second.startswith("nightly-")


def test_rds_an_export_of_that_identifier_from_before_is_not_taken_for_ours(run):
    server, instance = run("rds-export")
    source = instance.make().source_arn
    server.start_export_task({"ExportTaskIdentifier": "nightly", "SourceArn": source, "S3BucketName": "out"})
    server.all[0].created -= 3600
    with pytest.raises(Exception, match="same identifier"):
        instance.attempt()


def test_rds_an_export_of_another_source_is_not_taken_for_ours(run):
    server, instance = run("rds-export")
    server.start_export_task({"ExportTaskIdentifier": "nightly", "SourceArn": "arn:other", "S3BucketName": "out"})
    with pytest.raises(Exception, match="same identifier"):
        instance.attempt()


def test_rds_an_answer_of_the_service_that_is_an_error_after_the_effect_makes_no_second_export(run):
    server, instance = run("rds-export")
    server.fault("StartExportTask", Refuse(503, after_effect=True))
    server.duration = 0
    instance.attempt()
    assert len(server.all) == 1


def test_appflow_the_filter_is_not_changed_again_for_a_run_that_exists(run):
    server, instance = run("appflow-daily")
    die_after(instance, "http DescribeFlowExecutionRecords")
    server.duration = 0
    instance.attempt()
    assert (server.count("UpdateFlow"), len(server.all)) == (1, 1)


def test_appflow_a_start_in_doubt_is_repeated_without_another_change_of_the_filter(run):
    server, instance = run("appflow-daily")
    die_after(instance, "http StartFlow")
    server.duration = 0
    instance.attempt()
    assert (server.count("UpdateFlow"), len(server.all)) == (1, 1)


def test_appflow_a_run_after_a_failure_has_its_filter_again(run):
    server, instance = run("appflow-daily")
    with pytest.raises(Exception, match="(?i)error"):
        instance.attempt(listener=lambda _: [server.finish(job, "Error") for job in server.running()])
    server.tasks, server.duration = [], 0
    instance.attempt()
    assert server.all[0].body["tasks"] == server.all[1].body["tasks"] != []


def test_appflow_a_run_that_somebody_canceled_fails_at_once(run):
    server, instance = run("appflow-run")
    with pytest.raises(Exception, match="was canceled"):
        instance.attempt(listener=lambda _: [server.finish(job, "Canceled") for job in server.running()])
    assert instance.record["state"] == "failed"


def test_appflow_a_run_on_a_later_page_is_found(run):
    server, instance = run("appflow-run")
    die_after(instance, "http DescribeFlowExecutionRecords")
    server.finish(server.all[0])
    for number in range(5):
        server.finish(server.add(f"other-{number}", {}))
    job = service_of(instance.make())
    assert job.state_of(job.handle(instance.record["job"])) == "Successful"
