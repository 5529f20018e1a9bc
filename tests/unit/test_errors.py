"""What an error says besides its text: of which job, which service, and which start of the task."""

from __future__ import annotations

import pytest

from resumable import ConfigurationError, RefusedError, ResumableError, errors
from resumable.jobs.record import JobHandle
from tests.support.custom import Service, WithCancel, task
from tests.support.names import AirflowFailException

pytestmark = pytest.mark.usefixtures("no_waiting")


def test_an_error_of_a_start_carries_the_job_the_service_and_the_attempt():
    service = Service()
    instance = task(WithCancel, service, resume_policy={"on_failed": "fail"})
    service.on_poll = lambda: service.finish("FAILED")
    with pytest.raises(AirflowFailException) as raised:
        instance.attempt()
    error = raised.value.__cause__
    assert isinstance(error, RefusedError)
    assert (error.service, error.attempt, error.handle) == ("WithCancel", 1, JobHandle("WithCancel", instance.record["job"]))


def test_an_error_before_there_is_a_job_says_so():
    error = ConfigurationError("wrong")
    assert (error.service, error.handle, error.attempt) == (None, None, None)


def test_all_errors_have_one_base_and_what_is_raised_through_somebodys_code_has_one_that_is_no_exception():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
    answers = {errors.JobNotFound, errors.NotSubmitted, errors.StopNotTaken}
    others = {kind for kind in kinds if not issubclass(kind, ResumableError | errors.ControlFlow)}
    assert others == answers
    assert not issubclass(errors.ControlFlow, Exception)
