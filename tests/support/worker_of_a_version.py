"""
A worker, and a triggerer, that run one version of the library: asked one line of JSON at a time, answers with one.

Started as a script in the root of a checkout, so that ``resumable`` and the runner's double are those of that checkout. It keeps
nothing between two requests: what lasts (task state, the number of the try) comes with the request and goes back with the answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from datetime import datetime
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

ASK = sys.stdin
ANSWER = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what Airflow prints is no answer
sys.path.insert(0, str(Path.cwd()))

for _entry in entry_points(group="airflow.policy"):  # of the release that is installed; an earlier one has no such module
    if _entry.module.partition(".")[0] == "resumable" and find_spec(_entry.module) is None:
        sys.modules[_entry.module] = ModuleType(_entry.module)

_real_sleep, _real_async_sleep = time.sleep, asyncio.sleep
time.sleep = lambda seconds: _real_sleep(min(seconds, 0.005))  # type: ignore[assignment]


def _operator(request: dict[str, Any]) -> Any:
    module, _, name = request["operator"].rpartition(".")
    return getattr(import_module(module), name)(task_id="task", **request["arguments"])


def _task_instance(request: dict[str, Any]) -> Any:
    from tests.support.runner import TaskInstance

    instance = TaskInstance(lambda: _operator(request), retries=request["max_tries"])
    instance.data = request["data"]
    instance.try_number, instance.max_tries = request["try_number"], request["max_tries"]
    instance.clear_number = request["clear_number"]
    instance.run_started = datetime.fromisoformat(request["run_started"])
    return instance


def attempt(request: dict[str, Any]) -> dict[str, Any]:
    """One process of the task, from the top or resumed; it may die at the first thing it does once it watches a job."""
    from tests.support.names import AirflowRescheduleException, TaskDeferred
    from tests.support.runner import Effects, WorkerDied, _as_the_runner, _outgoing_calls

    instance = _task_instance(request)
    instance.effects = effects = Effects()
    if request.get("dies"):
        before = instance.data.get("resumable", {}).get("owner")

        def listen(effect: str) -> None:
            record = instance.data.get("resumable", {})
            effects.dead = record.get("state") == "submitted" and record["owner"] != before and effect != "store.set"

        effects.listener = listen
    operator, context = instance._process(effects)
    resume = request.get("resume")
    answer: dict[str, Any] = {}
    try:
        with _outgoing_calls(effects):
            if resume:
                result = _as_the_runner(operator, lambda: operator.resume_execution(*resume, context))
            else:
                result = _as_the_runner(operator, lambda: operator.execute(context))
        answer |= {"ended": "success", "result": result}
    except TaskDeferred as e:
        path, kwargs = e.trigger.serialize()
        answer |= {"ended": "deferred", "trigger": [path, kwargs], "method": e.method_name, "kwargs": e.kwargs}
    except AirflowRescheduleException:
        answer |= {"ended": "rescheduled"}
    except WorkerDied:
        answer |= {"ended": "died"}
    except Exception as e:
        answer |= {"ended": "failed", "error": repr(e)}
    return {**answer, "data": instance.data}


def trigger(request: dict[str, Any]) -> dict[str, Any]:
    """The triggerer: runs a trigger to its first event, or stops it while Airflow says that its task is in a state."""
    try:
        from resumable import host
    except ImportError:  # its name before
        from resumable import compat as host  # type: ignore[attr-defined, no-redef]

    path, kwargs = request["trigger"]
    module, _, name = path.rpartition(".")
    made = getattr(import_module(module), name)(**kwargs)
    made.task_instance = None
    if "state" not in request:
        try:
            return {"event": asyncio.run(_first_event(made))}
        except Exception as e:
            return {"error": repr(e), "traceback": [repr(e)]}

    async def state_seen(_: Any) -> Any:
        return request["state"]

    if hasattr(host, "state_seen_by_trigger"):
        host.state_seen_by_trigger = state_seen
    else:
        host._state_of = lambda _: request["state"]  # type: ignore[attr-defined]
    asyncio.run(made.on_kill())
    return {}


async def _first_event(made: Any) -> Any:
    events = made.run()
    try:
        async for event in events:
            return event.payload
    finally:
        await events.aclose()
    raise AssertionError("no event")


def main() -> None:
    import resumable

    print(json.dumps({"home": str(Path(str(resumable.__file__)).parents[1])}), file=ANSWER, flush=True)
    for line in ASK:
        request = json.loads(line)
        os.environ.update(request["env"])
        answer = {"attempt": attempt, "trigger": trigger}[request["do"]](request)
        print(json.dumps(answer, default=str), file=ANSWER, flush=True)


if __name__ == "__main__":
    main()
