"""What Airflow learns of this package when it discovers providers: its name and its configuration section."""

from __future__ import annotations

from typing import Any

from resumable.policy import options


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, by the schema of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-resumable",
        "name": "Resumable",
        "description": "Operators whose retry reattaches to the running job instead of starting a second one.",
        "cli": ["resumable.cli.main.airflow_commands"],
        "config": {
            "resumable": {
                "description": "Defaults of ResumePolicy, for every operator that does not say otherwise.",
                "options": {
                    **{name: _option(text, default) for name, text, default in options()},
                    "hand_back_seconds": _option(
                        "How many seconds after an eviction the task is started again. A date too near loses a race in the "
                        "scheduler; 10 is the floor.",
                        "60",
                    ),
                    "lost_sight_after": _option(
                        "wait = defer: after how many seconds without sight of its job a task is woken, to look at it and to "
                        "fail its try if it cannot see the job either.",
                        "21600",
                    ),
                    "fleet_share": _option(
                        "wait = defer: which part of a service's published rate of status calls each triggerer may use.", "0.4"
                    ),
                    "fleet_rates": _option(
                        "wait = defer: calls per second, and a burst, that each triggerer may make of an operation instead, e.g. "
                        "emr:ListSteps=2/20, databricks:runs/get=50.",
                        "",
                    ),
                    "fleet_threads": _option(
                        "wait = defer: how many status calls each triggerer makes at once by one connection to one service.", "8"
                    ),
                    "sweep_delay": _option(
                        "How many seconds after a user ended a task it is seen to that its job was stopped. Longer than the "
                        "task's own process may take: the heartbeat interval and five seconds.",
                        "15",
                    ),
                    "namespace": _option(
                        "Part of every idempotency token. Give two Airflow deployments different ones if both run the same DAGs "
                        "against the same workspace or account.",
                        "",
                    ),
                    "store": _option(
                        "Class that keeps the records, by its full path. Empty: Airflow's task state store on 3.3 and later, "
                        "Airflow Variables before.",
                        "",
                    ),
                    "adopt": _option(
                        "Operators of providers whose tasks are made durable without an edit of their DAGs, separated by commas: "
                        "services (databricks, emr, glue ...), names of operator classes, or all. Empty: none.",
                        "",
                    ),
                    "adopt_dags": _option(
                        "Which tasks of those: shell patterns of dag_id.task_id, and tag:NAME for a tag of the DAG, separated by "
                        "commas. Empty: all.",
                        "",
                    ),
                    "adopt_skip": _option("Which tasks not, in the same words.", ""),
                    "adopt_new": _option(
                        "false: adopted tasks that have a job are finished as durable ones, all others run as the provider's. "
                        "The first step of the way back.",
                        "true",
                    ),
                    "cleanup_modules": _option(
                        "Modules, separated by commas, whose functions the sweep may call to clean up what once() made for a "
                        "task that has no process any more. It calls them where the API server or the scheduler runs.",
                        "",
                    ),
                    "sweep_modules": _option(
                        "Modules, separated by commas, whose custom operators the sweep may import to stop a job whose task no "
                        "process holds. It imports them where the API server or the scheduler runs. Those of this package need "
                        "not be named.",
                        "",
                    ),
                    "look_for_variables": _option(
                        "On Airflow 3.3 and later: whether the first start of a task looks for the Variable that an older "
                        "Airflow may have left for it. false, once no task from before the upgrade can be in flight, saves a "
                        "request.",
                        "true",
                    ),
                    "store_path": _option(
                        "Where resumable.stores.object_storage.ObjectStorageStore keeps records, e.g. s3://aws_default@bucket/state.",
                        "",
                    ),
                },
            }
        },
    }


def _option(description: str, default: str) -> dict[str, Any]:
    return {"description": description, "version_added": None, "type": "string", "example": None, "default": default}
