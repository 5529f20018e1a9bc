"""
The planted faults, one entry each: a name, what is broken in words, the file, what stands there, what takes its place, and the
generators that are to notice. First those that were found by users and reviewers, then ones of the same kinds.

What stands there must stand there once. Nothing else is needed for a new one; `GENERATORS` has the names.
"""

from __future__ import annotations

from dataclasses import dataclass

GENERATORS: dict[str, tuple[str, ...]] = {
    "core": ("tests/property/test_state_machine.py",),
    "lives": ("tests/life/test_task_life.py",),
    "operators": ("tests/contract/test_lives.py",),
    "sweep": ("tests/property/test_sweep_life.py",),
    "checkpoint": ("tests/property/test_checkpoint_life.py", "tests/property/test_checkpoint_machine.py"),
    "watermark": ("tests/property/test_watermark_machine.py",),
    "once": ("tests/property/test_once_machine.py",),
}
"""What pytest is given for each. A name with a colon, as ``operators:ecs``, takes only the tests whose ids have the word."""


@dataclass(frozen=True)
class Mutant:
    """
    Args:
        name: for ``--only``.
        breaks: what is broken, in words.
        file: of the tree.
        old, new: what stands in it, once, and what takes its place.
        by: the generators that are to notice, the likeliest first.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    by: tuple[str, ...]


LIFECYCLE, RUN, MIXIN = "resumable/jobs/decision.py", "resumable/jobs/run.py", "resumable/jobs/mixin.py"
SUBMISSION, WATCHING = "resumable/jobs/submission.py", "resumable/jobs/watching.py"
ATTEMPT = "resumable/jobs/attempt.py"
ENDING, WAITING = "resumable/jobs/ending.py", "resumable/jobs/waiting.py"

CORE: list[Mutant] = [
    # -- what users and reviewers had found
    Mutant(
        "resubmits-in-the-same-try",
        "a start that sees its job failed submits another one, whatever try it is of",
        LIFECYCLE,
        'return Conclude(f"the job has failed ({observation}) and no try has failed for it yet")',
        "return _after_end(str(observation), policy, record.submission + 1)",
        ("core", "lives"),
    ),
    Mutant(
        "gone-resubmits-in-the-same-try",
        "a start that finds its job gone submits another one",
        LIFECYCLE,
        "            return gone(observation, policy)\n",
        "            return _after_end(None, policy, record.submission + 1)\n",
        ("core", "lives"),
    ),
    Mutant(
        "failing-restarts-in-the-same-try",
        "a job of which a part has failed is cancelled and started anew by the try that sees it",
        LIFECYCLE,
        "    if not _has_failed_a_try(record, claim):\n        return failing(observation, policy)\n    if policy",
        "    if policy",
        ("core", "operators:emr-steps"),
    ),
    Mutant(
        "values-that-move-are-edits",
        "a value that is computed when the DAG file is parsed, or a field that a provider gained, counts as the author's edit",
        "resumable/jobs/spec/comparison.py",
        "    if earlier is None or now is None:\n        return ()\n    replaced = frozenset(replaced)",
        "    if earlier and now:\n        return moved_fields(earlier, now)\n    replaced = frozenset(replaced)",
        ("core", "lives"),
    ),
    Mutant(
        "one-absent-answer-is-believed",
        "one answer that there is no such job is enough for a second one",
        "resumable/jobs/remote.py",
        "return self._answers >= ABSENT_ANSWERS and self._span >= ABSENT_SECONDS and self._lag <= 0",
        "return True",
        ("core", "lives"),
    ),
    Mutant(
        "a-lag-is-not-waited-for",
        "a job that its service does not show yet is taken for none",
        "resumable/jobs/remote.py",
        " and self._span >= ABSENT_SECONDS and self._lag <= 0",
        "",
        ("core", "lives:find"),
    ),
    Mutant(
        "an-unknown-error-is-a-no",
        "an error of the submit that is no broken connection is taken for the service's no",
        MIXIN,
        "        return proves_nothing_made(error)\n",
        '        return "Connection" not in type(error).__name__\n',
        ("lives",),
    ),
    Mutant(
        "a-second-job-in-one-start",
        "a second execute in one start of a task is given the first one's job",
        RUN,
        "if _begun is not None and _begun[0] is mine[0] and _begun[1] == mine[1]:",
        "if False:",
        ("lives:wrapped",),
    ),
    Mutant(
        "a-retry-policy-is-not-asked",
        "the last try of a task whose retry_policy ends it is not known for the last",
        "resumable/host/ending.py",
        """return "the task's retry_policy allows no other try" if says == "fail" else \"\"""",
        'return ""',
        ("lives",),
    ),
    Mutant(
        "a-limit-of-the-author-is-ignored",
        "a limit of the wait that the author gave ends nothing",
        WAITING,
        "    return found is not None\n",
        "    return False\n",
        ("operators:athena-sync",),
    ),
    Mutant(
        "the-request-is-not-kept",
        "the request of an unanswered submit is not kept, and one that has moved is refused until its token is forgotten",
        RUN,
        "may_record=lambda params: not host.holds_secret(params),",
        "may_record=lambda params: False,",
        ("operators:athena",),
    ),
    Mutant(
        "stale-after-a-clear",
        "the answer to a repeated submit from before a clear counts as a job of after it",
        SUBMISSION,
        "        record = self._owned(record)\n        if is_mended:",
        "        record = replace(self._owned(record), generation=self.claim.generation)\n        if is_mended:",
        ("core",),
    ),
    Mutant(
        "a-skip-is-a-failure",
        "a container that exits with a code of skip_on_exit_code counts as a failed job",
        "resumable/operators/ecs.py",
        "        if word.startswith(_SKIPPED):\n            return JobState.SUCCEEDED\n",
        "        if word.startswith(_SKIPPED):\n            return JobState.FAILED\n",
        ("operators:ecs",),
    ),
    Mutant(
        "a-reassigned-trigger-cancels",
        "a trigger that is given to another triggerer cancels its healthy job",
        "resumable/stop/triggers.py",
        "        if state not in MARKED:",
        "        if state is None:",
        ("operators:databricks-submit-run-deferrable",),
    ),
    Mutant(
        "a-cancel-that-was-not-done-counts",
        "a cancel that was answered counts as done, and the record is closed while the job runs",
        WATCHING,
        "            if not self._stops(record.handle):",
        "            if False:",
        ("operators:emr-steps", "lives"),
    ),
    Mutant(
        "a-final-failure-says-nothing",
        "the task ends while its job runs, and the record does not say why",
        ENDING,
        "    if record is None or record.outcome is not None or record.left or isinstance(error, SupersededError):",
        "    if True:",
        ("lives",),
    ),
    Mutant(
        "a-failed-look-is-the-verdict",
        "a look that fails while the job ends stands for the operator's own verdict on it",
        RUN,
        "and trouble.owes_a_verdict(error):",
        "and False:",
        ("lives",),
    ),
    # -- of the same kinds
    Mutant(
        "the-token-is-random",
        "each submit has a token of its own",
        "resumable/identity.py",
        "            self.map_index,\n            generation.max_tries,",
        '            __import__("uuid").uuid4().hex,\n            generation.max_tries,',
        ("core",),
    ),
    Mutant(
        "one-token-for-all-submissions",
        "the job after a failed one has the failed one's token",
        "resumable/identity.py",
        "            submission,\n            *([self.iteration",
        "            0,\n            *([self.iteration",
        ("core", "lives:resend"),
    ),
    Mutant(
        "one-token-before-and-after-a-clear",
        "a cleared task asks for the job of before",
        "resumable/identity.py",
        "            generation.max_tries,\n            generation.clear_number,\n            generation.run_started,\n",
        "",
        ("core", "lives:resend"),
    ),
    Mutant(
        "no-intent",
        "nothing is written before the submit goes out",
        SUBMISSION,
        "        self._records.save(record)\n        if self.record is None or self.record.token != record.token:",
        "        if self.record is None or self.record.token != record.token:",
        ("core", "lives"),
    ),
    Mutant(
        "a-restart-does-not-wait",
        "the next job is submitted once the cancel is out",
        ATTEMPT,
        "            self._remote.stop(self._known_handle(), decision.reason, self._submitted_at)",
        "            self._remote.cancel(self._known_handle())",
        ("core",),
    ),
    Mutant(
        "clears-are-not-noticed",
        "a clear is taken for a retry",
        LIFECYCLE,
        "    if claim.generation.relation_to(earlier) is Relation.CLEARED:\n        return True",
        "    if claim.generation.relation_to(earlier) is Relation.CLEARED:\n        return False",
        ("core",),
    ),
    Mutant(
        "a-siblings-clear-is-a-clear",
        "a clear of another task of the run restarts this one's job",
        "resumable/identity.py",
        "        return Relation.CLEARED if moved else Relation.SAME",
        "        return Relation.CLEARED if moved or self.clear_number != earlier.clear_number else Relation.SAME",
        ("core", "lives"),
    ),
    Mutant(
        "success-is-not-noticed",
        "a job that has succeeded while nobody looked is run again",
        LIFECYCLE,
        'return Deliver("the job has succeeded meanwhile")',
        'return Submit(record.submission + 1, "it has ended")',
        ("core", "lives"),
    ),
    Mutant(
        "unknown-is-failed",
        "a job that cannot be seen is taken for a failed one",
        LIFECYCLE,
        "        return _lost(observation)\n",
        '        return Submit(record.submission + 1, "it looks dead")\n',
        ("core", "lives"),
    ),
    Mutant(
        "owners-are-not-compared",
        "an attempt that was given up writes on",
        "resumable/stores/base.py",
        "        if owner not in (self._seen_owner, record.owner):",
        "        if False:",
        ("core",),
    ),
    Mutant(
        "an-eviction-cancels",
        "a worker that goes away takes its job with it",
        "resumable/stop/sigterm.py",
        "    return stop is Stop.BY_USER or is_restarted or is_timed_out",
        "    return stop in (Stop.BY_USER, Stop.EVICTION) or is_restarted or is_timed_out",
        ("lives",),
    ),
    Mutant(
        "an-eviction-costs-a-try",
        "an evicted task is not handed back, its try fails",
        ENDING,
        "        raise host.hand_back(seconds)\n    if stop is Stop.JOB_TIMEOUT:",
        '        raise LostSightError("evicted")\n    if stop is Stop.JOB_TIMEOUT:',
        ("lives",),
    ),
    Mutant(
        "a-users-stop-cancels-nothing",
        "who stops a task leaves its job running",
        "resumable/stop/sigterm.py",
        "    return stop is Stop.BY_USER or is_restarted or is_timed_out",
        "    return is_restarted or is_timed_out",
        ("lives",),
    ),
    Mutant(
        "a-mark-of-a-deferred-task-cancels-nothing",
        "who marks a deferred task leaves its job running",
        "resumable/stop/triggers.py",
        "        if state not in MARKED:",
        "        if state != 'removed':",
        ("operators:databricks-submit-run-deferrable",),
    ),
    Mutant(
        "trouble-of-a-look-costs-a-try",
        "a status that cannot be had for a moment fails the try",
        MIXIN,
        "        return is_trouble and not host.is_final(error)",
        "        return False",
        ("lives",),
    ),
    Mutant(
        "on-failed-is-not-heeded",
        "on_failed=fail submits another job nevertheless",
        LIFECYCLE,
        "    if choice in (OnMissing.FAIL, OnFailed.FAIL):",
        "    if choice is OnMissing.FAIL:",
        ("core", "lives"),
    ),
    Mutant(
        "what-is-failing-is-not-noted",
        "no try ever stops what still runs of a failed job",
        WATCHING,
        "        if record is not None and record.outcome is None and record.failing_try != self._try:",
        "        if False:",
        ("core", "operators:emr-steps"),
    ),
]

SWEEP: list[Mutant] = [
    Mutant(
        "sweep-stops-for-nobody",
        "the sweep takes every task that has ended for one that a user ended",
        "resumable/cleanup/ended.py",
        "    if not by_user and not (is_lost and record.cancel_if_lost):",
        "    if False:",
        ("sweep",),
    ),
    Mutant(
        "sweep-stops-what-was-left",
        "the sweep stops a job that its task left running on purpose",
        "resumable/cleanup/ended.py",
        "    if record.left:\n",
        "    if record.left and not by_user:\n",
        ("sweep",),
    ),
    Mutant(
        "sweep-mark-outlives-a-clear",
        "a user's mark counts for a later start of the task too",
        "resumable/cleanup/ended.py",
        "return is_of_run or (*row.task, row.ti_id) in self.tasks or row.task in self.tasks",
        "return is_of_run or any(row.task == task[:4] for task in self.tasks)",
        ("sweep",),
    ),
    Mutant(
        "sweep-run-ends-all-of-it",
        "the end of a run by a user counts for tasks that had ended before",
        "resumable/cleanup/ended.py",
        'is_of_run = row.run in self.runs and row.state == "skipped"',
        "is_of_run = row.run in self.runs",
        ("sweep",),
    ),
    Mutant(
        "sweep-imports-what-it-is-told",
        "the sweep imports the module that a record names, whatever the deployment says",
        "resumable/cleanup/reach.py",
        'not isinstance(path, str) or not _is_of(path, (OURS, *_modules("sweep_modules"))):',
        "not isinstance(path, str):",
        ("sweep",),
    ),
    Mutant(
        "sweep-calls-what-a-module-imported",
        "the sweep calls what an allowed module has imported itself",
        "resumable/cleanup/reach.py",
        "return found if callable(found) and _is_its_own(found, path) else None",
        "return found if callable(found) else None",
        ("sweep",),
    ),
    Mutant(
        "sweep-one-odd-row-ends-it",
        "what a task has nested too deep ends the sweep of all others",
        "resumable/cleanup/table.py",
        "except (ValueError, RecursionError) as e:",
        "except ValueError as e:",
        ("sweep",),
    ),
    Mutant(
        "sweep-dry-run-stops",
        "a dry run stops jobs",
        "resumable/cleanup/sweep.py",
        "if self._dry_run or not self._table.is_unchanged(row):  # a user",
        "if not self._table.is_unchanged(row):  # a user",
        ("sweep",),
    ),
    Mutant(
        "sweep-forgets-unanswered-submits",
        "the job of a submit that was not answered is not looked for when a user ends the task",
        "resumable/cleanup/sweep.py",
        "if found is Verdict.IN_DOUBT and (known :=",
        "if found is Verdict.CLOSED and (known :=",
        ("sweep",),
    ),
    Mutant(
        "listener-forgets-unanswered-submits",
        "the listener starts no sweep for a submit that was not answered",
        "resumable/cleanup/listener.py",
        "return found in (Verdict.STOP, Verdict.IN_DOUBT, Verdict.CLEAN_UP)",
        "return found in (Verdict.STOP, Verdict.CLEAN_UP)",
        ("sweep",),
    ),
    Mutant(
        "listener-forgets-deleted-runs",
        "the jobs of a deleted run run on",
        "resumable/cleanup/listener.py",
        "if found not in (Verdict.LEFT, Verdict.CLOSED, Verdict.ELSEWHERE):",
        "if found is Verdict.CLEAN_UP:",
        ("sweep",),
    ),
    Mutant(
        "sweep-touches-tasks-that-run",
        "the sweep takes up records of tasks that have not ended",
        "resumable/cleanup/table.py",
        "    if is_ended:\n",
        "    if not is_ended:\n",
        ("sweep",),
    ),
]

PATTERNS: list[Mutant] = [
    Mutant(
        "checkpoint-late-fail-lost",
        "an item that is told to have failed after it counted as done stays done",
        "resumable/checkpoint/progress.py",
        "            if self.flags[rank]:\n",
        "            if self.flags[rank] and position < 0:\n",
        ("checkpoint",),
    ),
    Mutant(
        "checkpoint-reads-ahead",
        "who takes the next item before the last is worked is not told",
        "resumable/checkpoint/loops.py",
        "        found = watch.asked(item, frame)\n",
        "        found = None\n",
        ("checkpoint",),
    ),
    Mutant(
        "checkpoint-given-is-done",
        "an item given out with ack=manual that is neither done nor failed is passed over",
        "resumable/checkpoint/work.py",
        "        if self.given:\n",
        "        if self.given and progress.failed:\n",
        ("checkpoint",),
    ),
    Mutant(
        "checkpoint-floods-a-slow-store",
        "a slow store is written to after every item",
        "resumable/checkpoint/pace.py",
        "SHARE = 30.0",
        "SHARE = 0.0",
        ("checkpoint",),
    ),
    Mutant(
        "checkpoint-grown-list-too-large",
        "a list that has grown by three orders of magnitude is kept by the chunks of the small one",
        "resumable/checkpoint/progress.py",
        "while key_list.size > room and key_list.mean <= key_list.count:",
        "while key_list.size > 1000 * room:",
        ("checkpoint",),
    ),
    Mutant(
        "checkpoint-siblings-clear",
        "a sibling's clear lets a finished checkpoint start over",
        "resumable/checkpoint/earlier.py",
        'relation_to(Generation.from_json(self._kept["generation"])) is Relation.CLEARED',
        'clear_number != Generation.from_json(self._kept["generation"]).clear_number',
        ("checkpoint",),
    ),
    Mutant(
        "watermark-moves-without-the-work",
        "the mark moves for a run that has not succeeded",
        "resumable/watermark/shared.py",
        "lambda: host.succeeded(self._task.context, waiting),",
        "lambda: set(waiting),",
        ("watermark",),
    ),
    Mutant(
        "watermark-skips-a-gap",
        "the mark moves across what a failed run was given",
        "resumable/watermark/intervals.py",
        "bool(self.mark <= mark < self.until)",
        "bool(mark < self.until)",
        ("watermark",),
    ),
    Mutant(
        "watermark-retry-reads-anew",
        "a retry is not given the interval of the first try",
        "resumable/watermark/run.py",
        '        self._save_own(given)\n        return self._opened(given, "begins at the mark", is_repeat=False)',
        '        return self._opened(given, "begins at the mark", is_repeat=False)',
        ("watermark",),
    ),
    Mutant(
        "watermark-two-tasks-one-mark",
        "two tasks move one mark that neither shares, and each skips what the other has read",
        "resumable/watermark/intervals.py",
        "return next((one for one in known if one is not None and one != (task.dag_id, task.task_id)), None)",
        "return next((one for one in known if one is None), None)",
        ("watermark",),
    ),
    Mutant(
        "watermark-backfill-a-day-late",
        "a backfill reads the day after its own",
        "resumable/watermark/intervals.py",
        "return first.date() - timedelta(days=1), last.date() - timedelta(days=1)",
        "return first.date(), last.date()",
        ("watermark",),
    ),
    Mutant(
        "watermark-backfill-moves-the-mark",
        "a backfill moves the mark to its end",
        "resumable/watermark/run.py",
        "given = Interval(outside[0], *outside, moves=False, generation=self._task.generation)",
        "given = Interval(outside[0], *outside, generation=self._task.generation)",
        ("watermark",),
    ),
    Mutant(
        "watermark-by-the-place-of-a-mapped-task",
        "the mark of a mapped task hangs on its place in the list",
        "resumable/stores/task_variables.py",
        "self._variables.set(self._named(key), json.dumps(value), DESCRIPTION)",
        "self._variables.set(self._named(key, self._task.map_index), json.dumps(value), DESCRIPTION)",
        ("watermark",),
    ),
]

ONCE: list[Mutant] = [
    Mutant(
        "once-given-up-cleans-up",
        "a try that is given up while it creates cleans up what its successor was given by the token",
        "resumable/setup_once.py",
        """        except SupersededError:
            self._cleanup.say_left(value)
            raise
""",
        """        except SupersededError:
            self._cleanup.clean_up(value)
            raise
""",
        ("once",),
    ),
    Mutant(
        "once-end-asks-nobody",
        "who ends cleans up without the write that a given-up try is refused",
        "resumable/setup_once.py",
        'self._stored.save({**self._kept, "is_being_cleaned_up": True}, tries=2)',
        "pass",
        ("once",),
    ),
    Mutant(
        "once-no-intent",
        "nothing is written before create is called",
        "resumable/setup_once.py",
        """        self._save(self._data("making", token))
        try:
            value = _called""",
        """        try:
            value = _called""",
        ("once",),
    ),
    Mutant(
        "once-token-of-its-own-each-time",
        "a try after one that died while it created has another token",
        "resumable/setup_once.py",
        'token = intent["token"] if intent else self._fresh_token()',
        "token = self._fresh_token()",
        ("once",),
    ),
    Mutant(
        "once-token-after-a-clean-up",
        "what was cleaned up and is made anew has the token of before",
        "resumable/setup_once.py",
        "number = max(number, int(self._spent_token[40:], 16) + 1)",
        "number = int(self._spent_token[40:], 16)",
        ("once",),
    ),
    Mutant(
        "once-half-cleaned-is-used",
        "what an earlier try had begun to clean up is given to the next",
        "resumable/setup_once.py",
        'elif state == "made" and is_being_cleaned:',
        "elif False:",
        ("once",),
    ),
    Mutant(
        "once-clear-is-not-noticed",
        "a cleared task is given what was made before",
        "resumable/setup_once.py",
        "if self._task.generation.relation_to(earlier) is Relation.CLEARED:",
        "if False:",
        ("once",),
    ),
    Mutant(
        "once-keeps-secrets",
        "what Airflow masks is kept in plain text",
        "resumable/setup_once.py",
        "if host.holds_secret(value):",
        "if False:",
        ("once",),
    ),
]

STORES: list[Mutant] = [
    Mutant(
        "task-state-refusal-is-an-outage",
        "a write that Airflow refuses to a given-up try counts as a store that does not answer",
        "resumable/stores/task_state.py",
        'return isinstance(detail, dict) and detail.get("status_code") == 404',
        "return False",
        ("checkpoint", "once"),
    ),
    Mutant(
        "task-state-lists-expire",
        "the list of a checkpoint's items is cleaned up while its work goes on",
        "resumable/stores/task_state.py",
        'return value.get("state") in OPEN or bool(_ITEMS.search(key))',
        'return value.get("state") in OPEN',
        ("checkpoint",),
    ),
    Mutant(
        "variables-owner-not-compared",
        "where nothing fences, a given-up try writes over what its successor has written",
        "resumable/stores/owned.py",
        "        if owner not in (self._seen_owner, self.owner):",
        "        if False:",
        ("once", "checkpoint"),
    ),
    Mutant(
        "variables-names-of-two-keys-are-one",
        "two values of a task whose names look alike are one Variable",
        "resumable/stores/variables.py",
        "json.dumps([*_without_region(task.ids).values(), key]).encode()",
        "json.dumps([*_without_region(task.ids).values(), key[:20]]).encode()",
        ("once",),
    ),
    Mutant(
        "object-storage-names-of-two-keys-are-one",
        "two values of a task whose names look alike are one object",
        "resumable/stores/object_storage.py",
        '        if name != key.replace(".", "-") or "-" in key:',
        "        if False:",
        ("once",),
    ),
    Mutant(
        "object-storage-of-two-runs-is-one",
        "two runs whose ids look alike share a folder",
        "resumable/stores/object_storage.py",
        'self._folder = self._base / _readable(task.dag_id) / run / f"{name}{mapped}.{digest}"',
        'self._folder = self._base / _readable(task.dag_id) / run / f"{name}{mapped}"',
        ("once",),
    ),
    Mutant(
        "object-storage-missing-mount-is-empty",
        "a folder that is not mounted for a moment is taken for one without state",
        "resumable/stores/object_storage.py",
        """        except FileNotFoundError:
            self._see_folder()
            return None
""",
        """        except FileNotFoundError:
            return None
""",
        ("once", "checkpoint"),
    ),
]

MUTANTS: list[Mutant] = [*CORE, *SWEEP, *PATTERNS, *ONCE, *STORES]
