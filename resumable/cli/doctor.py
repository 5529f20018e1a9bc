"""``doctor``: what is wrong with this deployment, as far as it can be seen from beside the scheduler, and what to do."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata

from resumable import adoption, host
from resumable._extras import COVERED, _numbers
from resumable.cli.output import DONE, TROUBLE, print_json, print_table, say, why_unusable
from resumable.errors import ConfigurationError
from resumable.fleet.budget import rates_of
from resumable.policy import ResumePolicy
from resumable.provider_info import get_provider_info

WRONG, LOOK, GOOD = "trouble", "look", "good"

_KEPT_ELSEWHERE = "jobs, show and cancel cannot read them, and neither can the sweep"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``todo`` says what to do about it."""

    level: str
    about: str
    what: str
    todo: str = ""


def run(given: argparse.Namespace) -> int:
    found = findings()
    if given.look and not any(one.about == "database" for one in found):
        found += _rights()
    if given.json:
        print_json([asdict(one) for one in found])
    else:
        found.sort(key=lambda one: (WRONG, LOOK, GOOD).index(one.level))
        print_table(("", "about", "found", "what to do"), (tuple(asdict(one).values()) for one in found))
        say(f"{sum(one.level == WRONG for one in found)} troubles, {sum(one.level == LOOK for one in found)} to look at")
    return TROUBLE if any(one.level == WRONG for one in found) else DONE


def findings() -> list[Finding]:
    """All of them; a check that fails itself is a trouble of its own."""
    found: list[Finding] = []
    try:
        host.beside().require_tables()
        checks = CHECKS
    except Exception as e:  # what it is, the finding says
        checks = tuple(check for check in CHECKS if check not in OF_DATABASE)
        todo = "The command and Airflow itself cannot do without it; pools, processes and jobs were not looked at"
        found.append(Finding(WRONG, "database", why_unusable(e) or f"{type(e).__name__}: {e}", todo))
    for check in checks:
        try:
            found.extend(check())
        except Exception as e:  # one broken part of a deployment must not hide the others
            found.append(Finding(WRONG, check.__name__.strip("_"), f"cannot be checked: {type(e).__name__}: {e}"[:300]))
    return found


def _airflow() -> Iterator[Finding]:
    version = metadata.version("apache-airflow")
    store = "a task state store" if host.has_task_state() else "records in Variables"
    yield Finding(GOOD, "Airflow", f"{version}: {store}")
    if not host.has_task_state():
        yield Finding(
            LOOK,
            "Airflow",
            "no listener hears of a user's stop of a task that no process holds, before 3.3",
            "Stop such jobs with `cancel`; look with `jobs --orphans`. Run `sweep` once a day",
        )


def _providers() -> Iterator[Finding]:
    for extra, (least, below) in COVERED.items():
        try:
            version = metadata.version(f"apache-airflow-providers-{extra}")
        except metadata.PackageNotFoundError:
            continue
        if _numbers(least) <= _numbers(version) < _numbers(below):
            yield Finding(GOOD, "providers", f"{extra} {version}")
        else:
            todo = f"Install airflow-resumable[{extra}], which brings a version that is covered"
            yield Finding(WRONG, "providers", f"{extra} {version} is not covered ({least} up to {below})", todo)


def _plugin() -> Iterator[Finding]:
    ours = {(point.group, point.name) for point in metadata.distribution("airflow-resumable").entry_points}
    for group, name, what in (
        ("airflow.plugins", "resumable", "the listener"),
        ("apache_airflow_provider", "provider_info", "the [resumable] section"),
        ("airflow.policy", "resumable", "adoption"),
    ):
        if (group, name) not in ours:
            missing = f"the entry point {group} is missing: {what} is not loaded"
            yield Finding(WRONG, "installation", missing, "Install the package anew")
    if "resumable" not in host.plugin_names():
        unheard = "Airflow has not loaded it: a user's stop of a task that no process holds is not heard"
        yield Finding(WRONG, "plugin", unheard, "`airflow plugins` says why")
    else:
        yield Finding(GOOD, "plugin", "loaded")


def _settings() -> Iterator[Finding]:
    options = get_provider_info()["config"]["resumable"]["options"]
    for name in sorted(host.configured_names() - set(options)):
        yield Finding(WRONG, "settings", f"[resumable] {name} is no option", f"Options are {', '.join(sorted(options))}")
    for name, option in options.items():
        value = host.setting(name)
        if value is not None and value != option["default"]:
            yield Finding(GOOD, "settings", f"{name} = {value} (from {host.origin_of(name)})")
    for name in host.configured_policy():
        if (value := host.setting(name)) is not None:
            yield from _policy_value(name, value)
    yield from _settings_not_followed()


def _settings_not_followed() -> Iterator[Finding]:
    for name, what, taken in host.wrong_settings():
        yield Finding(WRONG, "settings", f"{name} = {host.setting(name)!r} is not {what}", f"{taken} is taken until it is right")
    try:
        rates_of(host.setting("fleet_rates") or "")
    except ConfigurationError as e:
        yield Finding(WRONG, "settings", str(e), "The published rates are taken until it is right")


def _policy_value(name: str, value: str) -> Iterator[Finding]:
    try:
        ResumePolicy.of({name: value.strip().lower()})
    except ConfigurationError as e:
        said = str(e).replace("Nothing was submitted. ", "").replace("ResumePolicy: ", "")
        yield Finding(WRONG, "settings", said, "The default is taken until it is right")


def _store() -> Iterator[Finding]:
    try:
        host.require_store()
    except ConfigurationError as e:
        yield Finding(WRONG, "store", str(e), "No DAG with a durable task can be parsed until it is right")
        return
    if (where := host.records_are_elsewhere()) is not None:
        yield Finding(LOOK, "store", where, f"{_KEPT_ELSEWHERE}: stops of tasks that no process holds are yours to see to")
        try:
            host.try_store()
        except Exception as e:  # an object store, or somebody's own, may raise anything
            what = f"it does not answer: {type(e).__name__}: {e}"[:300]
            yield Finding(WRONG, "store", what, "No task that is durable can start a job until it does")
    else:
        yield Finding(GOOD, "store", "Airflow's database, which all share")
    path = (host.setting("store_path") or "").strip()
    if path:
        yield from _place_of_objects(path)
    if path and ("://" not in path or path.startswith("file://")):
        todo = "Mount the same folder everywhere, or give an object store, e.g. s3://aws_default@bucket/state"
        yield Finding(LOOK, "store", f"store_path = {path} is a folder of each machine", todo)


def _place_of_objects(path: str) -> Iterator[Finding]:
    """What checkpoints have no room for goes there, also where records are kept in the database."""
    try:
        host.try_store_path()
    except Exception as e:  # a file system may raise anything
        what = f"store_path = {path} cannot be read from here: {type(e).__name__}: {e}"[:300]
        yield Finding(WRONG, "store", what, "Mend it, mount it, or install what opens it, wherever tasks run and here")


def _modules() -> Iterator[Finding]:
    for name in ("sweep_modules", "cleanup_modules"):
        for module in (one.strip() for one in (host.setting(name) or "").split(",") if one.strip()):
            try:
                importlib.import_module(module)
            except Exception as e:
                what = f"{name}: {module} cannot be imported here ({type(e).__name__}: {e})"
                yield Finding(WRONG, "sweep", what, "Install it where the API server and the scheduler run")


def _namespace() -> Iterator[Finding]:
    if host.setting("namespace") is None:
        what = "no namespace: another deployment that runs the same DAGs with the same run ids would be answered with these jobs"
        yield Finding(LOOK, "namespace", what, "Give each deployment one, if two of them meet in a workspace or an account")


def _heartbeats() -> Iterator[Finding]:
    if not host.beside().is_alive("Scheduler"):
        yield Finding(WRONG, "scheduler", "none is alive", "Start one: `airflow scheduler`")
    if host.has_dag_processor() and not host.beside().is_alive("DagProcessor"):
        what = "none is alive: a change of a DAG, or of adopt, arrives nowhere"
        yield Finding(WRONG, "DAG processor", what, "Start one: `airflow dag-processor`")
    if not host.beside().is_alive("Triggerer"):
        deferred = sum(one.row.state == "deferred" for one in host.beside().records())
        defers = host.airflow_setting("operators", "default_deferrable", "False").lower() in ("true", "1", "t")
        level = WRONG if deferred or defers else LOOK
        said = f"none is alive, and {deferred} tasks with a job are deferred" if deferred else "none is alive"
        yield Finding(level, "triggerer", said, "Start one: `airflow triggerer`. Deferred tasks stand still without")
    else:
        yield Finding(GOOD, "triggerer", "alive")


def _pools() -> Iterator[Finding]:
    loose = [name for name, counts in host.beside().pools() if not counts and name != "default_pool"]
    if loose:
        what = f"{', '.join(loose)}: a deferred task frees its slot, so more jobs run than the pool has slots"
        yield Finding(LOOK, "pools", what, "Set include_deferred, if the pool is to limit jobs")


def _grace() -> Iterator[Finding]:
    executor = host.airflow_setting("core", "executor", "")
    if "Celery" in executor and os.environ.get("REMAP_SIGTERM") != "SIGQUIT":
        what = "REMAP_SIGTERM is not SIGQUIT in this environment: an evicted Celery worker tells its tasks nothing"
        todo = "Set REMAP_SIGTERM=SIGQUIT on the workers: their tasks are then handed back without a try"
        yield Finding(LOOK, "workers", what, todo)
    beat = yield from _number("workers", "min_heartbeat_interval", "5")
    if host.sweep_delay() < beat + 5:
        delay = f"sweep_delay = {host.sweep_delay():g}"
        what = f"{delay} is shorter than a task's own process may take to stop its job ({beat + 5:g} s)"
        yield Finding(WRONG, "grace periods", what, f"Give [resumable] sweep_delay at least {beat + 5:g}")
    seconds = host.killed_task_cleanup_time()
    if seconds is not None and seconds < 30:
        what = f"[core] killed_task_cleanup_time = {seconds:g}: SIGKILL may come before a job was told to stop"
        yield Finding(WRONG, "grace periods", what, "Give it 60 again")
    patience = host.lost_heartbeat_setting()
    timeout = yield from _number("scheduler", patience, "300")
    if timeout < 4 * beat:
        what = f"[scheduler] {patience} = {timeout:g}, less than four heartbeats: tasks at work are given up"
        yield Finding(WRONG, "grace periods", what, "Give it 300 again")
    if host.hand_back_seconds() < 30:
        what = f"hand_back_seconds = {host.hand_back_seconds():g}: a date that near may lose a race in the scheduler"
        yield Finding(LOOK, "grace periods", what, "Give it 60 again, unless tests need it")


def _number(section: str, name: str, default: str) -> Generator[Finding, None, float]:
    text = host.airflow_setting(section, name, default)
    try:
        return float(text)
    except ValueError:
        yield Finding(WRONG, "settings", f"[{section}] {name} = {text!r} is no number", f"Give it {default} again")
        return float(default)


def _adoption() -> Iterator[Finding]:
    wanted = adoption.choice()
    if not wanted.names:
        if idle := [name for name in ("adopt_dags", "adopt_skip") if host.setting(name)]:
            yield Finding(LOOK, "adoption", f"{idle[0]} is set and adopt is not: nothing is adopted", "Set [resumable] adopt")
        return
    for name in wanted.unknown_names():
        what = f"adopt: {name!r} is neither a service nor an operator class of one"
        yield Finding(WRONG, "adoption", what, f"Services are {', '.join(sorted(adoption.services()))}")
    state = "tasks become durable when their DAG is parsed" if adoption.takes_new() else "adopt_new = false: on the way back"
    yield Finding(GOOD, "adoption", f"{', '.join(sorted(wanted.names))}: {state}")


def _records() -> Iterator[Finding]:
    from resumable.cli.live import all_live

    found = list(all_live(in_short=True))
    orphans, in_doubt = sum(one.is_orphan for one in found), sum(one.is_in_doubt for one in found)
    unreadable = sum(one.record is None for one in found)
    yield Finding(GOOD, "jobs", f"{len(found)} live")
    if orphans:
        yield Finding(LOOK, "jobs", f"{orphans} run for nobody", "`jobs --orphans`, then `cancel`")
    if in_doubt:
        yield Finding(LOOK, "jobs", f"{in_doubt} submits are unanswered", "`jobs --in-doubt`")
    if unreadable:
        yield Finding(WRONG, "jobs", f"{unreadable} records cannot be read", "`jobs` says why")


MAX_ASKED = 20
"""Connections that are asked by one doctor."""


def _rights() -> Iterator[Finding]:
    """One call about many jobs for each connection that a live job has: not everybody who may look at one may do that."""
    from resumable.cli.jobs import adapter_for, by_connection
    from resumable.cli.live import all_live
    from resumable.cli.together import calls_of

    for chosen in by_connection(all_live(in_short=True))[:MAX_ASKED]:
        handles = [one.record.handle for one in chosen if one.record and one.record.handle]
        reach = (chosen[0].record and chosen[0].record.reach) or {}
        where = f"{chosen[0].service} by {', '.join(str(value) for name, value in reach.items() if name != 'operator')}"
        try:
            with adapter_for(chosen[0]) as adapter:
                call = next((call for call, _ in calls_of(adapter, handles, least=1)), None)
                if call is None:
                    continue
                call()
        except Exception as e:  # a service may raise anything
            what = f"{where}: a call about many jobs is refused: {type(e).__name__}: {e}"[:300]
            yield Finding(LOOK, "rights", what, "Allow it (docs/operating.md); until then each job is asked about by itself")
        else:
            yield Finding(GOOD, "rights", f"{where}: many jobs can be asked about at once")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _airflow,
    _providers,
    _plugin,
    _settings,
    _store,
    _modules,
    _namespace,
    _heartbeats,
    _pools,
    _grace,
    _adoption,
    _records,
)

OF_DATABASE = (_heartbeats, _pools, _records)
