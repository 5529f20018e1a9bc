"""What Airflow itself keeps a version from doing: scenario, with or without its operator, to the reason. Found by the matrix."""

from __future__ import annotations

from airflow import __version__

_UNTOLD = "a SIGTERM to the supervisor is passed on to nobody"

_EVICTIONS = {
    "an eviction leaves the job and uses no try not even with retries 0": _UNTOLD,
    "an eviction while the submit is in flight makes no second job": _UNTOLD,
}
_DEFERRED = "a cancelled trigger is not told why, and cannot ask"
_UNHEARD = "no process holds the task at that moment, and the listener looks into the task state store of 3.3"
_NO_SWEEP = "resumable.sweep reads the task state store of 3.3"
_MARKS = {
    "a task marked failed between two looks cancels its job once": _UNHEARD,
    "a task marked success after a hand back cancels its job once": _UNHEARD,
    "a mark whose worker is killed with it cancels the job once": _UNHEARD,
    "a sweep leaves the steps of a task that does not wait": _NO_SWEEP,
    "a sweep leaves the job of a last try that was lost and says so": _NO_SWEEP,
}

CANNOT: dict[str, dict[str, str]] = {
    "2.11": _MARKS,
    "3.0": {
        **_EVICTIONS,
        **_MARKS,
        "a deferred task marked failed cancels its job once": _DEFERRED,
        "a clear while running stops the old job before the new one": "Airflow leaves the task in the state restarting for ever",
        "a worker that lost the api server leaves the job to the retry": "its process was not seen to end, beside the retry",
    },
    "3.1": {**_EVICTIONS, **_MARKS, "a deferred task marked failed cancels its job once": _DEFERRED},
    "3.2": {**_EVICTIONS, **_MARKS},
    "3.3": {},
    "3.4": _EVICTIONS,
}

VERSION = ".".join(__version__.split(".")[:2])
"""Of the Airflow that is installed here, as `CANNOT` has it."""


def why_not(scenario: str) -> str | None:
    """What keeps the installed Airflow from this scenario, ``words-operator`` with spaces or underscores between words."""
    words = scenario.rpartition("-")[0].replace("_", " ")
    cannot = CANNOT.get(VERSION, {})
    return cannot.get(scenario, cannot.get(words))
