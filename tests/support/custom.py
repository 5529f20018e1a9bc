"""Custom operators on `ResumableMixin`, and their service in memory."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest

from resumable import JobNotFound, ResumableMixin
from tests.support.names import AirflowFailException, AirflowTaskTimeout, BaseOperator
from tests.support.runner import TaskInstance, WorkerDied


class JobFailedError(Exception):
    """What an operator raises for a job that failed."""


@dataclass
class Service:
    """A job service in memory. `on_poll` is called at each look of a wait."""

    states: dict = field(default_factory=dict)
    tokens: list = field(default_factory=list)
    looks: int = 0
    cancelled: list = field(default_factory=list)
    ids: object = field(default_factory=itertools.count)
    on_submit: object = lambda: None
    on_poll: object = lambda: None

    def start(self, token=None):
        self.tokens.append(token)
        known = [job_id for job_id, (_, of) in self.states.items() if token is not None and of == token]
        job_id = known[0] if known else next(self.ids)
        if not known:
            self.states[job_id] = ("RUNNING", token)
        self.on_submit()
        return job_id

    def status(self, job_id):
        self.looks += 1
        if job_id not in self.states:
            raise JobNotFound(f"no job {job_id}")
        return self.states[job_id][0]

    def finish(self, state="SUCCEEDED"):
        for job_id, (old, token) in self.states.items():
            if old == "RUNNING":
                self.states[job_id] = (state, token)

    def cancel(self, job_id):
        self.cancelled.append(job_id)
        self.states[job_id] = ("CANCELLED", self.states[job_id][1])

    @property
    def active(self):
        return [job_id for job_id, (state, _) in self.states.items() if state == "RUNNING"]


class SixMethods:
    """Exactly what an operator written for Airflow's own mixin has."""

    client: Service

    def execute(self, context):
        return self.execute_resumable(context)

    def submit_job(self, context):
        return self.client.start()

    def get_job_status(self, external_id, context):
        return self.client.status(external_id)

    def is_job_active(self, status):
        return status == "RUNNING"

    def is_job_succeeded(self, status):
        return status == "SUCCEEDED"

    def poll_until_complete(self, external_id, context):
        while self.is_job_active(status := self.get_job_status(external_id, context)):
            self.client.on_poll()
        if not self.is_job_succeeded(status):
            raise JobFailedError(status)

    def get_job_result(self, external_id, context):
        return {"rows": 7, "of": external_id}


class Plain(SixMethods, ResumableMixin, BaseOperator):
    pass


class WithToken(Plain):
    def submit_job(self, context):
        return self.client.start(self.idempotency_token)


class WithCancel(Plain):
    def cancel_job(self, external_id, context):
        self.client.cancel(external_id)


def task(operator, service, retries=3, **arguments):
    """The task; the operators that were made for its attempts are in `made`."""

    def make():
        instance.made.append(operator(task_id="task", **arguments))
        instance.made[-1].client = service
        return instance.made[-1]

    instance = TaskInstance(make, retries=retries)
    instance.made = []
    return instance


def die_in_the_wait(instance, service):
    def die():
        instance.effects.dead = True
        raise WorkerDied("in the wait")

    service.on_poll = die
    with pytest.raises(WorkerDied):
        instance.attempt()
    service.on_poll = service.finish


class WithOnKill(Plain):
    """As many operators are written: the job's id is kept by submit_job, and on_kill cancels it."""

    job_id = None

    def submit_job(self, context):
        self.job_id = super().submit_job(context)
        return self.job_id

    def on_kill(self):
        if self.job_id is not None:
            self.client.cancel(self.job_id)


def time_out():
    raise AirflowTaskTimeout("execution_timeout")


def final(message="the wait is tired"):
    raise AirflowFailException(message)
