"""The arguments of the command, and which module answers each."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

TASK = "a task: dag_id.task_id, or dag_id.task_id[7] of a mapped one; dag_id/task_id where dots could mean two"


@dataclass(frozen=True)
class Argument:
    """One argument of a subcommand, as argparse takes it."""

    flags: tuple[str, ...]
    given: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Command:
    """
    A subcommand.

    Attributes:
        name: of one word, or two: ``mark show``.
        help: one line.
        path: ``module:function`` below `resumable.cli`, called with the arguments; returns the exit code.
        arguments: its own.
    """

    name: str
    help: str
    path: str
    arguments: tuple[Argument, ...] = ()


def _flag(name: str, text: str) -> Argument:
    return Argument((name,), {"action": "store_true", "help": text})


def _seconds(text: str) -> float:
    from resumable.cli.output import seconds_of

    try:
        return seconds_of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give 90s, 15m, 6h or 2d") from None


_TASK = Argument(("task",), {"metavar": "TASK", "help": TASK})
_RUN = Argument(("--run",), {"metavar": "RUN_ID", "help": "the DAG run, where the task has records in several"})
_JSON = _flag("--json", "for scripts")
_YES = _flag("--yes", "do not ask")

COMMANDS = (
    Command(
        "jobs",
        "the external jobs that run now, over all DAGs",
        "jobs:run",
        (
            Argument(("--dag",), {"metavar": "PATTERN", "help": "of these DAGs: a shell pattern, e.g. 'sales.*'"}),
            Argument(("--service",), {"help": "of one service, e.g. databricks"}),
            Argument(("--older",), {"type": _seconds, "metavar": "AGE", "help": "at least so old: 90s, 15m, 6h, 2d"}),
            _flag("--orphans", "only those that run for nobody; exit code 1 if there are any"),
            _flag("--in-doubt", "only those whose submit was not answered; exit code 1 if there are any"),
            _flag("--look", "ask the services for their states now"),
            Argument(("--limit",), {"type": int, "default": 200, "help": "rows of the table, the oldest jobs first; 0: all"}),
            _JSON,
        ),
    ),
    Command("show", "one record, its history, and what the next attempt would do", "show:run", (_TASK, _RUN, _JSON)),
    Command(
        "cancel",
        "stop a task's job: through its task, where that is at work",
        "cancel:run",
        (
            _TASK,
            _RUN,
            Argument(
                ("--wait",),
                {
                    "type": _seconds,
                    "default": 60.0,
                    "metavar": "TIME",
                    "help": "for the task to stop it, before it is cancelled directly",
                },
            ),
            _YES,
        ),
    ),
    Command(
        "forget",
        "have the next attempt submit another job, where this one runs no more",
        "forget:run",
        (_TASK, _RUN, _flag("--no-job", "I have looked in the service: there is no such job"), _YES),
    ),
    Command(
        "adopt",
        "make a job that somebody started by hand a task's",
        "adopt:run",
        (
            _TASK,
            Argument(("job",), {"metavar": "JOB", "help": "its id, or its ids as JSON"}),
            _RUN,
            Argument(
                ("--with",),
                {
                    "dest": "values",
                    "action": "append",
                    "default": [],
                    "metavar": "NAME=VALUE",
                    "help": "an argument of the task's operator that Airflow's database does not have, e.g. aws_conn_id=prod",
                },
            ),
            _YES,
        ),
    ),
    Command(
        "sweep",
        "stop the jobs that a user's stop did not reach, and delete what nobody needs any more",
        "tidy:run",
        (
            _flag("--dry-run", "say what would be done, and do nothing"),
            Argument(
                ("--ended-by-user",),
                {
                    "nargs": 3,
                    "action": "append",
                    "default": [],
                    "metavar": ("DAG_ID", "RUN_ID", "TASK_ID"),
                    "help": "a user has ended this task: its job may be stopped; a mapped one as TASK_ID[7]",
                },
            ),
        ),
    ),
    Command(
        "mark show",
        "the marks of watermarks",
        "marks:show",
        (Argument(("name",), {"nargs": "?", "help": "those whose name has this in it"}), _JSON),
    ),
    Command(
        "mark set",
        "move a mark",
        "marks:set_",
        (Argument(("name",), {"help": "as mark show has it"}), Argument(("value",), {"help": "of its type"}), _YES),
    ),
    Command(
        "mark reset",
        "delete a mark: the next run begins at its start=",
        "marks:reset",
        (Argument(("name",), {"help": "as mark show has it"}), _YES),
    ),
    Command(
        "doctor",
        "what is wrong with this deployment, and what to do; exit code 1 on trouble",
        "doctor:run",
        (
            _flag("--look", "ask the services of live jobs too: may they be asked about many?"),
            _JSON,
        ),
    ),
    Command(
        "plan",
        "what the setting adopt would make durable, task by task; nothing is changed",
        "plan:run",
        (
            Argument(("folder",), {"nargs": "?", "metavar": "DAGS_FOLDER", "help": "default: airflow.cfg's"}),
            _flag("--back", "what is in flight and has to end before the setting is taken away; exit code 1 if anything"),
            Argument(("--adopt",), {"metavar": "LIST", "help": "instead of the setting, e.g. 'databricks, emr' or all"}),
            _JSON,
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m resumable``. Returns the exit code: 0 done, 1 trouble or refused, 2 wrong arguments or cannot be asked here."""
    with suppress(ValueError):  # `python -m` puts the working directory first, and there may be anything in it
        if not getattr(sys.flags, "safe_path", False) and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109 - as sys.path has it
            del sys.path[0]
    if sys.stderr is None:  # closed: Airflow's log would fail
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as long as the process
    try:
        given = _parser().parse_args(arguments)
    except SystemExit as e:
        return int(e.code or 0)
    return call(given.resumable_path, given)


def call(path: str, given: argparse.Namespace) -> int:
    """Run a subcommand, as `in_words`."""
    from resumable.cli.output import answers_apart

    def run() -> int:
        with answers_apart():
            from resumable import host

            host.be_a_server()
            module, _, name = path.partition(":")
            found: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(f"resumable.cli.{module}"), name)
            return found(given)

    _be_quiet()
    return in_words(run)


def in_words(run: Callable[[], int]) -> int:
    """The exit code of ``run``; what it refuses and what does not answer is one line on standard error."""
    from resumable.cli.output import INTERRUPTED, TROUBLE, UNUSABLE, Refused, Unreadable, complain, why_unusable
    from resumable.errors import ResumableError

    try:
        return run()
    except Refused as e:
        complain(e)
        return TROUBLE
    except (ResumableError, Unreadable) as e:
        complain(e)
        return UNUSABLE
    except KeyboardInterrupt:
        complain("interrupted. What was said to be done is done, and nothing else")
        return INTERRUPTED
    except Exception as e:
        if (what := why_unusable(e)) is None:
            raise
        complain(what)
        return UNUSABLE


def _be_quiet() -> None:
    """Airflow's own lines about plug-ins and providers belong to no answer, and standard output is for the answer."""
    import logging

    for name in ("airflow", "alembic", "botocore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _parser() -> argparse.ArgumentParser:
    text = "External jobs of Airflow tasks: what runs, for whom, and what to do about it. Run it beside the scheduler."
    parser = argparse.ArgumentParser(prog="python -m resumable", description=text)
    groups = {"": parser.add_subparsers(required=True, metavar="COMMAND")}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in groups:
            of_group = groups[""].add_parser(group, help=f"{group}s of watermarks: show, set, reset")
            groups[group] = of_group.add_subparsers(required=True, metavar="COMMAND")
        one = groups[group].add_parser(name, help=command.help, description=command.help)
        for argument in command.arguments:
            one.add_argument(*argument.flags, **argument.given)
        one.set_defaults(resumable_path=command.path)
    return parser


def airflow_commands() -> list[Any]:
    """``airflow resumable ...``, for an Airflow that takes the commands of providers (provider info ``cli``, 3.2 and later)."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    def action(command: Command, name: str) -> Any:
        arguments = [Arg(argument.flags, **argument.given) for argument in command.arguments]
        return ActionCommand(name, command.help, lambda given: sys.exit(call(command.path, given)), arguments)

    grouped: dict[str, list[Any]] = {}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        grouped.setdefault(group, []).append(action(command, name))
    own = [*grouped.pop(""), *(GroupCommand(name, f"{name}s of watermarks", made) for name, made in grouped.items())]
    return [GroupCommand("resumable", "External jobs of tasks: what runs, for whom, and what to do about it", own)]
