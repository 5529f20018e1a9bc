"""SageMaker: a job has the author's name, and what surrounds the submit is not repeated."""

from __future__ import annotations

import json
import re

import pytest
from airflow.providers.amazon.aws.sensors.sagemaker import SageMakerTrainingSensor

from resumable.operators import sagemaker
from tests.contract import aws_jobs
from tests.services import Drop, Refuse
from tests.services.aws_jobs import AwsError
from tests.support.aws_tasks import die_after, tasks

pytestmark = pytest.mark.usefixtures("no_waiting")

BOTH = pytest.mark.parametrize("mode", [{}, {"deferrable": True}], ids=["sync", "deferrable"])
OPERATORS = {name: (ours, bench, modes) for name, ours, _, bench, modes in aws_jobs.CASES if name.startswith("sagemaker")}
NAMED = [name for name in OPERATORS if name != "sagemaker-pipeline"]


@pytest.fixture
def run(monkeypatch):
    with tasks(OPERATORS, monkeypatch) as make:
        yield make


def author_name(instance):
    operator = instance.make()
    return type(operator)._resumable.service(operator).author_name()


def submit_of(server):
    return next(call.operation for call in server.calls() if call.operation.startswith(("Create", "Start")))


@pytest.mark.parametrize("name", NAMED)
def test_the_first_job_has_the_authors_name_and_one_that_follows_it_a_short_mark_more(run, name):
    server, instance = run(name)
    given = author_name(instance)
    with pytest.raises(Exception, match="(?i)fail|error"):
        instance.attempt(listener=lambda _: [server.finish(job, server.failed, "boom") for job in server.running()])
    server.duration = 0
    instance.attempt()
    first, second = (job.id for job in server.all)
    assert first == given
    assert second == f"{given[: server.length - 9]}-{instance.record['token'][:8]}" == instance.record["job"]["name"]


@BOTH
@pytest.mark.parametrize("name", ["sagemaker-training", "sagemaker-processing", "sagemaker-transform"])
def test_a_name_that_somebody_elses_job_has_is_made_another_by_the_providers_own_rule(run, name, mode):
    server, instance = run(name, **mode)
    given = author_name(instance)
    server.add(given, {f"{server.kind}Name": given})
    server.finish(server.all[0])
    server.duration = 0
    instance.attempt()
    made = server.all[1].id
    assert re.fullmatch(rf"{given}-\d{{10}}", made)
    assert instance.record["job"]["name"] == made


@BOTH
def test_with_action_if_job_exists_fail_a_taken_name_fails_the_try_and_the_own_failed_job_does_not_count(run, mode):
    server, instance = run("sagemaker-training", action_if_job_exists="fail", **mode)
    theirs = server.add("train", {"TrainingJobName": "train"})
    server.finish(theirs)
    with pytest.raises(Exception, match="already exists"):
        instance.attempt()
    assert server.all == [theirs]
    assert instance.record["state"] == "rejected"
    server.all.clear()
    server.forget()
    with pytest.raises(Exception, match="(?i)fail|error"):
        instance.attempt(listener=lambda _: [server.finish(job, server.failed, "boom") for job in server.running()])
    server.duration = 0
    instance.attempt()
    assert len(server.all) == 2


@pytest.mark.parametrize("name", ["sagemaker-tuning", "sagemaker-auto-ml"])
def test_without_such_a_rule_a_taken_name_fails_the_try_and_that_job_is_left_alone(run, name):
    server, instance = run(name)
    given = author_name(instance)
    theirs = server.add(given, {f"{server.kind}Name": given})
    with pytest.raises(Exception, match="already exists"):
        instance.attempt()
    assert server.running() == server.all == [theirs]
    assert instance.record["state"] == "rejected"


@pytest.mark.parametrize("name", ["sagemaker-training", "sagemaker-processing", "sagemaker-tuning", "sagemaker-auto-ml"])
def test_in_doubt_a_job_of_that_name_from_before_the_submit_is_not_taken_for_ours(run, name):
    server, instance = run(name)
    server.fault(f"Create{server.kind}", Drop(before_effect=True), times=9)
    with pytest.raises(Exception, match="(?i)connection"):
        instance.attempt()
    given = author_name(instance)
    theirs = server.add(given, {f"{server.kind}Name": given})
    theirs.created -= 3600
    server.clear_faults()
    with pytest.raises(Exception, match="already exists"):
        instance.attempt()
    assert server.all == [theirs]
    assert instance.record["job"] is None


def test_a_sensor_after_a_task_that_does_not_wait_finds_the_job(run):
    server, instance = run("sagemaker-training", wait_for_completion=False)
    instance.attempt()
    server.duration = 0
    sensor = SageMakerTrainingSensor(
        task_id="await", job_name=instance.make().config["TrainingJobName"], print_log=False, aws_conn_id=None
    )
    assert sensor.poke({})


@pytest.mark.parametrize("name", ["sagemaker-processing", "sagemaker-tuning", "sagemaker-auto-ml", "sagemaker-pipeline"])
def test_a_job_that_somebody_stopped_is_no_success(run, name):
    server, instance = run(name, wait_for_completion=True)
    with pytest.raises(RuntimeError, match="was stopped"):
        instance.attempt(listener=lambda _: [server.finish(job, server.stopped) for job in server.running()])
    assert instance.record["state"] == "failed"


@pytest.mark.parametrize("died_in", ["Describe", "Create"], ids=["the wait", "the submit"])
@BOTH
def test_uploads_before_the_submit_are_not_repeated_for_a_job_that_runs(run, monkeypatch, mode, died_in):
    from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook

    seen = []
    monkeypatch.setattr(SageMakerHook, "configure_s3_resources", lambda _, config: seen.append("S3Operations" in config))
    config = {**aws_jobs._training("x")["config"], "S3Operations": {"S3CreateBucket": [{"Bucket": "b"}]}}
    server, instance = run("sagemaker-training", config=config, **mode)
    monkeypatch.setattr(SageMakerHook, "create_training_job", _without_operations(SageMakerHook.create_training_job))
    die_after(instance, f"http {died_in}TrainingJob")
    server.duration = 0
    instance.attempt()
    assert seen == [True, False]
    assert len(server.all) == 1


def _without_operations(create):
    return lambda self, config, **more: create(self, {k: v for k, v in config.items() if k != "S3Operations"}, **more)


@pytest.mark.parametrize("died_in", ["Describe", "Create"], ids=["the wait", "the submit"])
@BOTH
def test_a_job_that_runs_does_not_fail_because_its_input_is_gone(run, mode, died_in):
    server, instance = run("sagemaker-transform", **mode)
    die_after(instance, f"http {died_in}TransformJob")
    server.has_input, server.duration = False, 0
    instance.attempt()
    assert len(server.all) == 1


def test_input_that_is_missing_before_the_submit_fails_as_by_the_provider(run):
    server, instance = run("sagemaker-transform")
    server.has_input = False
    with pytest.raises(Exception, match="does not exist"):
        instance.attempt()
    assert server.all == []


@pytest.mark.parametrize("effect", ["http CreateModel", "http CreateTransformJob"])
@BOTH
def test_a_transform_makes_one_model_and_one_job_wherever_it_dies_between_the_two(run, mode, effect):
    server, instance = run("sagemaker-transform", **mode)
    die_after(instance, effect)
    server.duration = 0
    result = instance.attempt()
    assert (len(server.models), len(server.all)) == (1, 1)
    assert result["Transform"]["ModelName"] == result["Model"]["ModelName"] == next(iter(server.models))


def test_a_model_that_was_edited_after_a_death_is_made_anew(run):
    server, instance = run("sagemaker-transform")
    die_after(instance, "http CreateModel")
    edited = aws_jobs.transform("as written")
    edited["config"]["Model"]["PrimaryContainer"]["Image"] = "other"
    operator = sagemaker.ResumableSageMakerTransformOperator
    instance.make = lambda: operator(task_id="task", aws_conn_id=None, **edited)
    server.duration = 0
    instance.attempt()
    assert server.models[server.all[0].body["ModelName"]]["PrimaryContainer"]["Image"] == "other"


MODEL = aws_jobs.transform("as written")["config"]["Model"]


def a_model_for(server, instance):
    """The name of the model of the last job, which has succeeded."""
    server.duration = 0
    instance.attempt()
    return server.all[-1].body["ModelName"]


@BOTH
def test_the_model_has_the_authors_name_where_others_look_for_it(run, mode):
    server, instance = run("sagemaker-transform", **mode)
    assert a_model_for(server, instance) == "model"
    instance.clear()
    assert a_model_for(server, instance) == "model"  # the same one serves the next job
    assert list(server.models) == ["model"]


@pytest.mark.parametrize(
    ("there", "serves"),
    [
        (MODEL, True),
        ({**MODEL, "PrimaryContainer": {**MODEL["PrimaryContainer"], "Mode": "SingleModel"}}, True),
        ({**MODEL, "PrimaryContainer": {"Image": "other"}}, False),
        ({**MODEL, "ExecutionRoleArn": "arn:aws:iam::123456789012:role/other"}, False),
        ({"ModelName": "model"}, False),
    ],
)
def test_a_model_of_that_name_serves_only_if_it_is_the_one_that_was_asked_for(run, there, serves):
    server, instance = run("sagemaker-transform")
    server.models["model"] = there
    name = a_model_for(server, instance)
    assert (name == "model", len(server.models)) == (serves, 1 if serves else 2)
    assert server.models["model"] == there
    assert server.models[name]["PrimaryContainer"]["Image"] == "image"


def test_a_model_whose_answer_was_lost_is_the_one_that_was_made(run):
    server, instance = run("sagemaker-transform")
    server.fault("CreateModel", Drop())
    assert a_model_for(server, instance) == "model"
    assert server.count("CreateModel") == 2


def test_where_models_cannot_be_looked_at_the_model_has_a_name_that_no_other_has(run):
    server, instance = run("sagemaker-transform")
    left = [1]
    described = server.describe_model

    def refused(body):
        if left:
            left.pop()
            raise AwsError("AccessDeniedException", "not authorized to perform: sagemaker:DescribeModel")
        return described(body)

    server.describe_model = refused
    assert a_model_for(server, instance).startswith("model-")


def test_a_transform_of_a_model_that_exists_makes_none(run):
    config = aws_jobs.transform("as written")["config"]["Transform"]
    server, instance = run("sagemaker-transform", config=config)
    server.models["model"] = {"ModelName": "model"}
    server.duration = 0
    instance.attempt()
    assert list(server.models) == ["model"]


def test_a_name_that_was_edited_while_the_submit_was_in_doubt_makes_no_second_job(run):
    server, instance = run("sagemaker-training", resume_policy={"on_change": "reattach"})
    instance.is_all_written = True
    die_after(instance, "http CreateTrainingJob")
    instance.data["resumable"].pop("params", None)  # as for a request too large to keep
    made = instance.make

    def edited():
        operator = made()
        operator.config = {**operator.config, "TrainingJobName": "edited"}
        return operator

    instance.make = edited

    def finish(effect):
        if server.count("DescribeTrainingJob") > 1:  # the first tells when the job was made
            server.duration = 0

    instance.attempt(listener=finish)
    assert len(server.all) == 1


def test_the_authors_config_is_left_as_it_was(run):
    config = aws_jobs._training("x")["config"]
    before = json.dumps(config)
    server, instance = run("sagemaker-training", config=config)
    server.duration = 0
    instance.attempt()
    assert json.dumps(config) == before


def test_the_config_of_an_operator_that_has_executed_is_what_was_asked_for(run):
    """The provider's code parses the numbers in it and puts the job's name there, and a subclass reads that afterwards."""
    config = aws_jobs._training("x")["config"]
    config["ResourceConfig"]["InstanceCount"] = "2"
    server, instance = run("sagemaker-training", config=config)
    server.add(config["TrainingJobName"], {"TrainingJobName": config["TrainingJobName"]})  # somebody else's
    server.duration = 0
    operators = []
    instance.attempt(render=lambda operator, context: operators.append(operator))
    assert operators[0].config["ResourceConfig"]["InstanceCount"] == 2
    assert operators[0].config["TrainingJobName"] == server.all[1].id != config["TrainingJobName"]


def test_max_ingestion_time_fails_the_try_and_leaves_the_job(run):
    server, instance = run("sagemaker-processing", check_interval=2, max_ingestion_time=5)
    with pytest.raises(Exception, match="took more than 5 seconds"):
        instance.attempt()
    assert server.count("StopProcessingJob") == 0
    server.duration = 0
    instance.attempt()
    assert len(server.all) == 1


def test_an_error_that_says_not_valid_is_not_taken_for_gone(run):
    server, instance = run("sagemaker-training")
    die_after(instance, "http DescribeTrainingJob")
    answer = {"__type": "ValidationException", "message": "1 validation error detected"}
    server.fault("DescribeTrainingJob", Refuse(400, answer), times=3)
    server.duration = 0
    instance.attempt()
    assert len(server.all) == 1


def test_a_pipeline_start_whose_answer_is_lost_is_repeated_under_its_token(run):
    server, instance = run("sagemaker-pipeline")
    server.fault("StartPipelineExecution", Drop())
    server.duration = 0
    instance.attempt()
    tokens = {call.body["ClientRequestToken"] for call in server.calls("StartPipelineExecution")}
    assert (len(tokens), len(server.all)) == (1, 1)


def test_the_trigger_sees_that_a_pipeline_has_completed_with_failures(run):
    server, instance = run("sagemaker-pipeline", deferrable=True, waiter_max_attempts=20)
    run_trigger, events = instance.run_trigger, []

    def note(deferred):
        server.finish(server.all[0], "CompletedWithFailures")
        events.append(run_trigger(deferred))
        return events[-1]

    instance.run_trigger = note
    assert instance.attempt() == server.all[0].id
    assert events == [("execute_complete", {"event": {"status": "success", "value": server.all[0].id}})]


def test_a_pipeline_stop_carries_one_token(run):
    server, instance = run("sagemaker-pipeline")
    die_after(instance, "http DescribePipelineExecution")
    execution = sagemaker.PipelineExecution(instance.make())
    handle = sagemaker.JobHandle("sagemaker", instance.record["job"], {})
    execution.cancel(handle)
    execution.cancel(handle)
    assert len({call.body["ClientRequestToken"] for call in server.calls("StopPipelineExecution")}) == 1
    assert server.all[0].state == "Stopped"


def test_output_files_do_not_hinder_a_wait_by_reschedule(run):
    from tests.support.names import AirflowRescheduleException

    files = [{"output_name": "o", "file_name": "f", "result_name": "r"}]
    server, instance = run("sagemaker-processing", output_files_to_xcom=files, resume_policy={"wait": "reschedule"})
    with pytest.raises(AirflowRescheduleException):
        instance.attempt()
    instance.try_number -= 1
    server.duration = 0
    instance.attempt()
    assert len(server.all) == 1
