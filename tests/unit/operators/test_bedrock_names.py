"""Bedrock says that a job's name is taken under more than one code."""

from __future__ import annotations

import pytest

from tests.contract.aws_jobs import CASES
from tests.services import Refuse
from tests.support.aws_tasks import die_after, tasks

pytestmark = pytest.mark.usefixtures("no_waiting")

BEDROCK = {
    "bedrock-batch-inference": "CreateModelInvocationJob",
    "bedrock-customize-model": "CreateModelCustomizationJob",
}
OPERATORS = {name: (ours, bench) for name, ours, _, bench, _ in CASES if name in BEDROCK}


@pytest.fixture
def run(monkeypatch):
    with tasks(OPERATORS, monkeypatch) as make:
        yield make


@pytest.mark.parametrize("name", BEDROCK)
@pytest.mark.parametrize("code", ["ConflictException", "ValidationException"])
def test_a_name_that_is_taken_after_a_submit_in_doubt_is_the_job_that_it_made(run, name, code):
    server, instance = run(name)
    die_after(instance, f"http {BEDROCK[name]}")
    taken = {"__type": code, "message": "The provided job name is currently in use."}
    server.fault(BEDROCK[name], Refuse(status=400, body=taken))
    server.duration = 0
    instance.attempt()
    assert len(server.all) == 1
    assert instance.record["job"]["arn"] == server.all[0].id
    assert instance.record["state"] == "succeeded"


@pytest.mark.parametrize("name", BEDROCK)
def test_another_validation_error_is_a_refusal(run, name):
    server, instance = run(name)
    server.fault(BEDROCK[name], Refuse(status=400, body={"__type": "ValidationException", "message": "roleArn is malformed"}))
    with pytest.raises(Exception, match="malformed"):
        instance.attempt()
    assert (instance.record["state"], len(server.all)) == ("rejected", 0)
