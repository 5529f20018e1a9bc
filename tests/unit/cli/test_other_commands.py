"""``python -m resumable.sweep`` and ``resumable.maintenance``: where something is wrong, one line and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from resumable import host
from resumable.cleanup import variables
from resumable.cli.main import main
from tests.support import database

COMMANDS = (["resumable.maintenance"], ["resumable.maintenance", "--list"], ["resumable.sweep", "--dry-run"])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_beside_a_database_that_is_none_of_airflows_it_is_one_line(tmp_path, command):
    if command[0] == "resumable.sweep" and not host.has_task_state():
        pytest.skip("there is nothing to sweep")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**environment, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/x.db"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "is not one of Airflow" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.skipif(not host.has_task_state(), reason="the tables are those of Airflow 3.3")
@pytest.mark.parametrize("path", ["nonsense://bucket/state", "file:///nowhere/at/all"], ids=["scheme", "mount"])
@pytest.mark.parametrize("command", [["sweep"], ["sweep", "--dry-run"], []], ids=["sweep", "dry run", "list"])
def test_a_place_for_objects_that_cannot_be_opened_keeps_the_sweep_from_nothing_else(monkeypatch, caplog, path, command):
    database.empty()
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE_PATH", path)
    assert (main(command) if command else variables.main(["--list"])) == 1
    assert "what lies below [resumable] store_path is left alone" in caplog.text
    assert command == [] or "0 marks" in caplog.text
