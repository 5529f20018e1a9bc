"""What the package is from the outside: what it imports, what Airflow knows of it, what it says at DAG parse."""

from __future__ import annotations

import functools
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import airflow
import pytest
from airflow.providers_manager import ProvidersManager

import resumable
import resumable.operators
from resumable import ConfigurationError, ResumableMixin, ResumePolicy
from resumable.operators.databricks import ResumableDatabricksOperator, ResumableDatabricksRunNowOperator
from resumable.operators.emr import ResumableEmrAddStepsOperator
from resumable.policy import SETTINGS
from resumable.provider_info import get_provider_info
from tests.support.names import DAG, BaseOperator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ROOT = Path(resumable.__file__).parents[1]

OPERATORS = [
    (ResumableDatabricksOperator, {"json": {"notebook_task": {}}}),
    (ResumableDatabricksRunNowOperator, {"job_id": 1}),
    (ResumableEmrAddStepsOperator, {"job_flow_id": "j-1"}),
]
EACH_OPERATOR = pytest.mark.parametrize(("operator", "arguments"), OPERATORS, ids=lambda v: getattr(v, "__name__", ""))

FRESH_INTERPRETER = pytest.mark.slow
"""It imports all of Airflow once more: four seconds a test."""


def python(code, **environ):
    """Run code in a fresh interpreter; return what it printed last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@functools.cache
def imported_by(module):
    return set(python(f"import {module}, sys, json; print(json.dumps(sorted(sys.modules)))"))


def under(modules, prefix):
    return sorted(name for name in modules if name == prefix or name.startswith(prefix + "."))


# -- imports -----------------------------------------------------------------------------------------------------------


@FRESH_INTERPRETER
@pytest.mark.parametrize("module", ["resumable", "resumable.provider_info", "resumable.operators"])
def test_importing_the_package_imports_neither_airflow_nor_a_provider(module):
    modules = imported_by(module)
    assert under(modules, "airflow") == []
    assert [name for name in ("botocore", "boto3", "requests", "tenacity", "sqlalchemy") if name in modules] == []


@FRESH_INTERPRETER
def test_the_provider_metadata_is_had_without_airflow():
    code = "import json, sys; from resumable.provider_info import get_provider_info; get_provider_info();"
    assert python(code + "print(json.dumps([m for m in sys.modules if m.partition('.')[0] == 'airflow']))") == []


@FRESH_INTERPRETER
@pytest.mark.parametrize(
    ("module", "own", "others"),
    [
        ("resumable.operators.databricks", "databricks.operators.databricks", ["amazon", "cncf", "google", "microsoft"]),
        ("resumable.operators.emr", "amazon.aws.operators.emr", ["databricks", "cncf", "google", "microsoft"]),
    ],
)
def test_an_operators_module_imports_no_provider_but_its_own(module, own, others):
    modules = imported_by(module)
    assert f"airflow.providers.{own}" in modules
    metadata = {f"airflow.providers.{other}{of}" for other in others for of in ("", ".get_provider_info")}  # read by Airflow
    found = {name for other in others for name in under(modules, f"airflow.providers.{other}")}
    assert found - metadata == set()


@FRESH_INTERPRETER
def test_the_databricks_module_imports_no_aws_client():
    modules = imported_by("resumable.operators.databricks")
    assert under(modules, "botocore") + under(modules, "boto3") + under(modules, "resumable.operators._aws") == []


@FRESH_INTERPRETER
@pytest.mark.parametrize(("module", "extra"), [("databricks", "databricks"), ("emr", "amazon")])
def test_a_missing_provider_is_an_import_error_that_names_the_extra(module, extra):
    code = f"""
import importlib.abc, json, sys
from airflow.providers_manager import ProvidersManager

ProvidersManager().initialize_providers_configuration()  # it is installed after all, and would be missed

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "airflow.providers.{extra}" or name.startswith("airflow.providers.{extra}."):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

for name in [name for name in sys.modules if name.startswith("airflow.providers.{extra}")]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocker())
try:
    import resumable.operators.{module}
except ImportError as e:
    print(json.dumps([type(e).__name__, str(e), e.name]))
"""
    kind, text, name = python(code)
    assert kind == "ImportError"
    assert f"pip install 'airflow-resumable[{extra}]'" in text
    assert "Nothing was submitted" in text
    assert name.startswith(f"airflow.providers.{extra}")


@FRESH_INTERPRETER
def test_another_error_in_a_providers_import_is_not_taken_for_a_missing_provider():
    code = """
import importlib.abc, json, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "aiohttp":
            raise ModuleNotFoundError("No module named 'aiohttp'", name=name)

sys.meta_path.insert(0, Blocker())
try:
    import resumable.operators.databricks
except ImportError as e:
    print(json.dumps([type(e).__name__, str(e)]))
"""
    assert python(code) == ["ModuleNotFoundError", "No module named 'aiohttp'"]


def test_all_is_sorted_equals_the_lazy_map_and_each_name_resolves():
    assert resumable.__all__ == sorted(resumable._HOMES)
    for name in resumable.__all__:
        value = getattr(resumable, name)
        assert value.__name__ == name
        assert value.__module__ == resumable._HOMES[name]


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Resumable'"):
        _ = resumable.Resumable
    assert resumable.__version__ == importlib.metadata.version("airflow-resumable")


def test_every_operators_module_lists_what_it_exports():
    for module in pkgutil.iter_modules(resumable.operators.__path__):
        if not module.name.startswith("_"):
            home = importlib.import_module(f"resumable.operators.{module.name}")
            assert home.__all__ == sorted(home.__all__)
            assert all(hasattr(home, name) for name in home.__all__)


def test_operators_at_the_top_level_is_a_link_to_the_package():
    link = ROOT / "operators"
    assert link.is_symlink()
    assert link.readlink() == Path("resumable/operators")
    assert link.resolve() == ROOT / "resumable" / "operators"


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "resumable" / "py.typed").is_file()


# -- at DAG parse ------------------------------------------------------------------------------------------------------

WRONG = [
    ({"durable": "yes"}, r"durable='yes' is neither True nor False"),
    ({"durable": None}, r"durable=None is neither True nor False"),
    ({"durable": 1}, r"durable=1 is neither True nor False"),
    ({"resume_policy": "reattach"}, r"resume_policy='reattach' is a str.*Give a ResumePolicy"),
    ({"resume_policy": True}, r"resume_policy=True is a bool"),
    ({"resume_policy": ["on_clear"]}, r"is a list"),
    ({"resume_policy": {"on_clear": "never"}}, r"on_clear='never'.*Use one of 'restart', 'reattach'"),
    ({"resume_policy": {"on_failed": "retry"}}, r"on_failed='retry'.*Use one of 'resubmit', 'fail'"),
    ({"resume_policy": {"on_missing": None, "on_change": 3}}, r"on_change=3.*'restart', 'reattach', 'fail'"),
    ({"resume_policy": {"on_cleared": "restart"}}, r"no setting \['on_cleared'\].*on_clear"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=lambda v: str(v) if isinstance(v, dict) else "")
@EACH_OPERATOR
def test_a_wrong_argument_fails_when_the_dag_is_parsed_with_the_right_words(operator, arguments, wrong, words):
    with DAG("dag", schedule=None), pytest.raises(ConfigurationError, match=words) as caught:
        operator(task_id="task", **arguments, **wrong)
    assert isinstance(caught.value, ValueError)
    assert "Nothing was submitted" in str(caught.value)


@EACH_OPERATOR
def test_a_wrong_argument_of_a_mapped_task_fails_when_the_dag_is_parsed(operator, arguments):
    with DAG("dag", schedule=None), pytest.raises(ConfigurationError, match="'restart', 'reattach'"):
        operator.partial(task_id="task", resume_policy=ResumePolicy(on_clear="never"), **arguments).expand(pool=["a"])


@EACH_OPERATOR
def test_both_arguments_work_through_default_args(operator, arguments):
    defaults = {"durable": False, "resume_policy": {"on_clear": "reattach"}}
    with DAG("dag", schedule=None, default_args=defaults):
        task = operator(task_id="task", **arguments)
        own = operator(task_id="own", durable=True, **arguments)
    assert (task.durable, own.durable) == (False, True)
    assert own.resume_policy.on_clear == "reattach"


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("no.such.Store", r"store='no\.such\.Store' cannot be imported.*ModuleNotFoundError"),
        ("Store", r"store='Store' cannot be imported"),
        ("resumable.stores.NoStore", r"cannot be imported.*AttributeError"),
        ("resumable.stores.base.RecordStore", r"is no store: it has no get\(\)"),
        ("resumable.stores.object_storage.ObjectStorageStore", r"store_path=None is no URL.*file:///"),
    ],
)
@EACH_OPERATOR
def test_a_store_that_cannot_be_used_fails_when_the_dag_is_parsed(operator, arguments, store, words, monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__STORE", store)
    with pytest.raises(ConfigurationError, match=words) as caught:
        operator(task_id="task", **arguments)
    assert "Nothing was submitted" in str(caught.value)
    assert operator(task_id="task", durable=False, **arguments).durable is False


class Custom(ResumableMixin, BaseOperator):
    def nothing(self, *args):
        """What is not under test."""

    submit_job = get_job_status = is_job_active = is_job_succeeded = poll_until_complete = get_job_result = nothing


def test_the_environment_gives_the_default_of_a_policy(monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__ON_CLEAR", "reattach")
    assert Custom(task_id="task").resume_policy.on_clear == "reattach"
    assert Custom(task_id="task", resume_policy={"on_clear": "restart"}).resume_policy.on_clear == "restart"
    assert Custom(task_id="task").resume_policy.on_change == "restart"


def test_an_empty_default_in_the_environment_is_none(monkeypatch):
    monkeypatch.setenv("AIRFLOW__RESUMABLE__ON_CLEAR", "")
    assert Custom(task_id="task").resume_policy.on_clear == "restart"


# -- what Airflow knows ------------------------------------------------------------------------------------------------


def test_airflow_lists_the_package_as_a_provider():
    known = ProvidersManager().providers
    assert "airflow-resumable" in known
    assert known["airflow-resumable"].version == importlib.metadata.version("airflow-resumable")


def test_airflow_knows_the_configuration_section_and_its_defaults():
    (section,) = [of[name] for _, of in ProvidersManager().provider_configs for name in of if name == "resumable"]
    assert set(SETTINGS) | {"namespace"} <= set(section["options"])
    assert section["options"]["on_clear"]["default"] == "restart"


@FRESH_INTERPRETER
def test_airflow_config_shows_the_section():
    code = """
import json
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager
ProvidersManager().initialize_providers_configuration()  # Airflow 3 does so when asked, Airflow 2's commands when they start
print(json.dumps([conf.get("resumable", "on_clear"), conf.get("resumable", "on_final_failure")]))
"""
    assert python(code) == ["restart", "leave"]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_default_that_airflow_shows_is_the_one_that_is_used(name):
    shown = get_provider_info()["config"]["resumable"]["options"][name]["default"]
    assert ResumePolicy().resolved({name: shown}) == ResumePolicy().resolved()


def test_provider_info_is_valid_by_airflows_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = Path(airflow.__file__).parent / "provider_info.schema.json"
    if not schema.is_file():
        pytest.skip("this Airflow ships no schema")
    jsonschema.validate(get_provider_info(), json.loads(schema.read_text()))


def test_provider_info_names_the_distribution():
    assert get_provider_info()["package-name"] == importlib.metadata.metadata("airflow-resumable")["Name"]


# -- drop-in -----------------------------------------------------------------------------------------------------------


@EACH_OPERATOR
@pytest.mark.parametrize(
    "name",
    ["template_fields", "template_ext", "template_fields_renderers", "operator_extra_links", "ui_color", "ui_fgcolor"],
)
def test_a_ready_made_operator_has_what_the_ui_shows_of_the_providers(operator, arguments, name):
    theirs = operator.__bases__[0]
    assert getattr(operator, name) == getattr(theirs, name)
    assert getattr(operator(task_id="task", **arguments), name) == getattr(theirs(task_id="task", **arguments), name)


@EACH_OPERATOR
def test_a_ready_made_operator_is_an_instance_of_the_providers(operator, arguments):
    theirs = operator.__bases__[0]
    task = operator(task_id="task", **arguments)
    assert isinstance(task, theirs)
    assert theirs.__module__.startswith("airflow.providers.")


@pytest.mark.slow
def test_a_release_has_every_module_in_its_source_and_in_the_wheel_made_of_it(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("building needs uv")
    subprocess.run([uv, "build", "--quiet", "--out-dir", tmp_path, ROOT], check=True, timeout=120)
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "resumable").rglob("*.py")}
    assert {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")} == modules
    with tarfile.open(source) as packed:
        assert modules <= {name.partition("/")[2] for name in packed.getnames()}


def serialization():
    from airflow.serialization import serialized_objects

    return getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG


@EACH_OPERATOR
def test_a_dag_with_a_ready_made_operator_can_be_serialized_and_read_back(operator, arguments):
    DagSerialization = serialization()
    with DAG("dag", schedule=None) as dag:
        operator(task_id="task", resume_policy={"on_clear": "reattach"}, **arguments)
        over = {"databricks_conn_id" if "databricks" in operator.__module__ else "aws_conn_id": ["a"]}
        operator.partial(task_id="mapped", resume_policy=ResumePolicy(on_clear="reattach"), **arguments).expand(**over)
    data = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    again = DagSerialization.from_dict(data)
    assert set(again.task_dict) == {"task", "mapped"}
    links = {link.name for link in again.task_dict["task"].operator_extra_links}
    assert links == {link.name for link in operator.operator_extra_links}
