"""``show``: one record in plain words, and what the next attempt of its task would do."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from resumable import host
from resumable.cli.links import link_of
from resumable.cli.live import Live, one_of
from resumable.cli.output import DONE, duration, print_facts, print_json, print_table, say
from resumable.jobs.decision import (
    AttemptFacts,
    Conclude,
    Decision,
    Deliver,
    Find,
    JobState,
    Look,
    Observation,
    Reattach,
    Recovery,
    Refuse,
    Restart,
    Submit,
    decide,
)
from resumable.jobs.record import JobRecord
from resumable.policy import ResumePolicy


def run(given: argparse.Namespace) -> int:
    one = one_of(given.task, given.run)
    nexts = next_attempt(one)
    if given.json:
        past = [event.to_json() for event in one.record.history] if one.record else []
        print_json({**one.to_json(), "history": past, "next_attempt": nexts, "record": one.kept.row.value})
        return DONE
    _print(one, nexts)
    return DONE


def _print(one: Live, nexts: list[str]) -> None:
    record = one.record
    facts: list[tuple[str, Any]] = [("task", one.task), ("run", one.run_id), ("task state", one.kept.row.state)]
    facts.append(("watched by", one.watcher))
    if record is None:
        facts.append(("record", one.problem))
    else:
        facts += [("service", record.service), ("job", one.job), ("state", f"{one.state}, as of the last event")]
        facts += [("age", duration(one.age)), ("token", record.token)]
        facts.append(("try", f"{record.try_number} of {one.kept.max_tries + 1}, attempt {record.attempt}"))
        facts.append(("submission", f"number {record.submission + 1} since the task was cleared last"))
        link = link_of(record.handle)
        facts += [("link", link)] if link else []
    print_facts(facts)
    if record is not None and record.history:
        say("")
        print_table(("when (UTC)", "try", "what happened", ""), (_event(event) for event in record.history))
    say("")
    say("The next attempt:")
    for line in nexts:
        say(f"- {line}")


def _event(event: Any) -> tuple[Any, ...]:
    when = datetime.fromtimestamp(event.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    return when, event.try_number, event.what, event.note


def next_attempt(one: Live) -> list[str]:
    """
    What the next try would do by what the record says, for each state that its job may be in.

    The deployment's defaults of the policy are taken: what the operator itself asks for is in its DAG file alone.
    """
    record = one.record
    if record is None:
        return ["fails: the record cannot be read. If a newer release wrote it, upgrade; else look for its job, and `forget` it."]
    policy = host.resolved_policy(ResumePolicy())
    waits = record.left is None
    facts = AttemptFacts(record.generation, record.spec, _recovery(record), waits, try_number=record.try_number + 1)
    if record.outcome is not None or record.in_doubt:
        return [_in_words(decide(record, None, policy, facts), record)]
    lines = []
    for state, words in (
        (JobState.ACTIVE, "if the job runs"),
        (JobState.SUCCEEDED, "if it has succeeded"),
        (JobState.FAILED, "if it has failed"),
        (JobState.GONE, "if the service no longer knows it"),
    ):
        lines.append(f"{words}: {_in_words(decide(record, Observation(state), policy, facts), record)}")
    cleared = replace(facts, generation=replace(record.generation, max_tries=record.generation.max_tries + 1))
    lines.append(f"after a clear, if it runs: {_in_words(decide(record, Observation(JobState.ACTIVE), policy, cleared), record)}")
    return lines


def _recovery(record: JobRecord) -> Recovery:
    from resumable.cleanup.reach import adapter_of

    try:
        adapter = adapter_of(record.reach)
    except Exception:  # somebody's operator may raise anything
        adapter = None
    return Recovery.MANUAL if adapter is None else adapter.recovery


def _in_words(decision: Decision, record: JobRecord) -> str:
    match decision:
        case Reattach():
            return f"reattaches to {record.handle}: {decision.reason}"
        case Deliver():
            return f"returns the job's result and submits nothing: {decision.reason}"
        case Conclude():
            return f"fails for the job that has failed: {decision.reason}"
        case Restart():
            return f"stops the job, waits until it has stopped, and submits another one: {decision.reason}"
        case Submit():
            again = "sends the unanswered submit again under the same token" if decision.in_doubt else "submits a job"
            return f"{again}: {decision.reason}"
        case Refuse():
            then = f"The try after it {decision.next_try}" if decision.next_try else decision.advice
            return f"fails: {decision.reason}. {then}"
        case Find():
            return "looks the job up by its token, and submits only if there is none"
        case Look():
            return "looks at the job first"
        case _:
            return str(decision)
