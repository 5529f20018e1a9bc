"""An edit is an edit of the author: what he wrote in the DAG file counts by value, what was computed there by its type."""

from __future__ import annotations

import itertools
import json
import os
import textwrap
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from types import SimpleNamespace
from typing import Any

import attrs
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resumable.identity import Generation
from resumable.jobs.decision import Recovery
from resumable.jobs.record import MAX_BYTES, JobHandle, JobRecord
from resumable.jobs.spec import Spec, edited_fields, is_of_the_job, moved_fields, named, replaced_marks, spec_values
from resumable.jobs.spec.codes import UNKNOWN_CODE, has_literal
from tests.support.fake_service import CLEARED, Clock, FakeService, FaultyStore, Lines, new_attempt, start

UNHURRIED = settings(deadline=None)


def parsed(text: str, **names: Any) -> Spec:
    """Return the spec of a task whose fields are the variables that the DAG file ``text`` leaves."""
    text = textwrap.dedent(text)
    values: dict[str, Any] = dict(names)
    exec(compile(text, "dag.py", "exec"), values)
    fields = {name: value for name, value in values.items() if name not in names and not name.startswith(("_", "the_"))}
    fields = {name: v for name, v in fields.items() if not callable(v) and not isinstance(v, type(os)) and not name.isupper()}
    return Spec.of(fields, text, task_id=names.get("task_id", ""))


# -- what is an edit -----------------------------------------------------------------------------------------

EDITS = {
    "text": ("sql = 'select 1'", "sql = 'select 2'"),
    "number": ("workers = 4", "workers = 8"),
    "negative number": ("offset = -1", "offset = -2"),
    "sum": ("seconds = 60 * 60", "seconds = 60 * 90"),
    "joined texts": ("path = 's3://a' + '/b'", "path = 's3://a' + '/c'"),
    "type": ("workers = 4", "workers = '4'"),
    "flag": ("photon = True", "photon = False"),
    "template": ("name = 'at {{ ts }}'", "name = 'at {{ ds }}'"),
    "f-string without a value in it": ("name = f'a'", "name = f'b'"),
    "deep": ("json = {'cluster': {'conf': ['--a', 1]}}", "json = {'cluster': {'conf': ['--a', 2]}}"),
    "a key more": ("json = {'a': 1}", "json = {'a': 1, 'b': 2}"),
    "a key with a computed value more": ("json = {'a': 1}", "json = {'a': 1, 'b': uuid()}"),
    "a key less": ("json = {'a': 1, 'b': 2}", "json = {'a': 1}"),
    "an element more": ("steps = ['a', 'b']", "steps = ['a', 'b', 'c']"),
    "the order": ("steps = ['a', 'b']", "steps = ['b', 'a']"),
    "an element of a set": ("tags = {'a', 'b'}", "tags = {'a', 'c'}"),
    "text in the file, through a name": ("the_x = 'a'\nname = the_x", "the_x = 'b'\nname = the_x"),
    "text in a loop over a dict": ("for name in {'a': 1}: pass", "for name in {'b': 1}: pass"),
    "an indented text": ("sql = dedent('''\n   select 1\n  ''')", "sql = dedent('''\n   select 2\n  ''')"),
    "a stripped text": ("sql = '''\n select 1\n'''.strip()", "sql = '''\n select 2\n'''.strip()"),
    "computed becomes written": ("name = uuid()", "name = 'x'"),
    "written becomes computed": ("name = 'x'", "name = uuid()"),
    "another type is computed": ("name = uuid()", "name = minutes(2)"),
    "written beside computed": ("json = {'at': uuid(), 'size': 4}", "json = {'at': uuid(), 'size': 8}"),
    "a field more": ("a = 1", "a = 1\nb = 'x'"),
    "a field less": ("a = 1\nb = 'x'", "a = 1"),
}
HELPERS = {"uuid": lambda: str(uuid.uuid4()), "minutes": lambda n: timedelta(minutes=n), "dedent": textwrap.dedent}


@pytest.mark.parametrize(("one", "other"), EDITS.values(), ids=EDITS)
def test_an_edit_of_what_the_author_wrote_is_an_edit(one, other):
    assert edited_fields(parsed(one, **HELPERS), parsed(other, **HELPERS))


@pytest.mark.parametrize(("one", "other"), EDITS.values(), ids=EDITS)
def test_the_same_file_is_never_edited_whatever_it_computes(one, other):
    for text in (one, other):
        assert not edited_fields(parsed(text, **HELPERS), parsed(text, **HELPERS))


class Client:
    """Has no text of its own."""


MOVES = {
    "now": lambda n: datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=n),
    "now in a name": lambda n: f"nightly-2026-01-01T00:00:{n:02}",
    "uuid4": lambda n: str(uuid.UUID(int=n)),
    "a number": lambda n: 1000 + n,
    "a flag": lambda n: bool(n % 2),
    "a client": lambda _: Client(),
    "a callable": lambda _: lambda: 1,
    "timedelta": lambda n: timedelta(minutes=n),
    "a list, by its length": lambda n: [f"part-{i}" for i in range(n)],
    "a dict, by its length": lambda n: {f"key-{i}": f"value-{i}" for i in range(n)},
    "yaml": lambda n: {"cluster": {"workers": 1000 + n, "nodes": [f"n-{i}" for i in range(n)]}},
    "in a list": lambda n: [[f"part-{n}"], {"x-y": n + 1000}],
}
ELSEWHERE = "field = compute()\n"


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("file", [ELSEWHERE, ELSEWHERE + "other = Operator(size=17)\n"], ids=["same file", "unrelated edit"])
def test_what_is_computed_moves_and_that_is_no_edit(move, file):
    one, other = Spec.of({"field": move(1)}, ELSEWHERE), Spec.of({"field": move(2)}, file)
    assert not edited_fields(one, other)
    assert not edited_fields(other, one)


def test_an_edit_that_makes_a_constant_of_a_computed_value_elsewhere_is_none():
    one = Spec.of({"size": 4, "at": "t-1"}, "size = int(env('N')); at = now()")
    other = Spec.of({"size": 4, "at": "t-2"}, "size = int(env('N')); at = now(); Other(workers=4)")
    assert not edited_fields(one, other)
    assert not edited_fields(other, one)


def test_that_holds_for_two_entries_of_one_dict_of_which_the_other_has_moved():
    one = Spec.of({"json": {"size": 4, "at": "t-1"}}, "json = {'size': int(env('N')), 'at': now()}")
    other = Spec.of({"json": {"size": 4, "at": "t-2"}}, "json = {'size': int(env('N')), 'at': now()}; Other(workers=4)")
    assert not edited_fields(one, other)


NUMBERS = """
DAG("etl", description="one", default_args={"retries": 3, "depends": False}, tags=["a", "4"])
Other(task_id="other", workers=2, share=0.5, n_of_others=4)
Job(json={"notebook_params": {"n": len(files), "is_full": is_sunday(), "part": share(), "ids": [*ids()]}}, workers=cpus())
"""


def job_of(n, text=NUMBERS, **more):
    """The spec of the last task of the file; all that is computed there comes from ``n``."""
    params = {"n": n, "is_full": bool(n % 2), "part": n / 4, "ids": list(range(n))}
    return Spec.of({"json": {"notebook_params": params}, "workers": n, **more}, text)


@pytest.mark.parametrize(("n", "later"), [(3, 4), (4, 3), (2, 1), (2, 4), (0, 1), (1, 4)])
@pytest.mark.parametrize(
    "edit",
    [
        ('"one"', '"two"'),
        ('"retries": 3', '"retries": 4'),
        ("share=0.5", "share=0.25"),
        ("n_of_others=4", "n_of_others=3"),
        ("workers=2", "workers=1"),
        ("False", "True"),
        ('["a", "4"]', "[3]"),
        ("\nJob", "\nOther(x=1, y=True, z=(4, 3))\nJob"),
    ],
    ids=str,
)
def test_a_computed_number_that_also_stands_elsewhere_in_the_file_is_no_edit_and_the_log_names_it(n, later, edit):
    text = NUMBERS.replace(*edit)
    assert text != NUMBERS
    for one, other in ((job_of(n), job_of(later, text)), (job_of(n, text), job_of(later))):
        assert not edited_fields(one, other)
        assert moved_fields(one, other) == ("json.notebook_params", "workers")


def test_a_number_computed_elsewhere_than_in_the_file_is_no_edit_although_the_file_has_its_like_under_the_same_name():
    text = "job = Job(json=load_yaml()); Other(n=3)"
    for n, later in ((3, 4), (4, 3), (4, 5)):
        assert not edited_fields(Spec.of({"json": {"n": n}}, text), Spec.of({"json": {"n": later}}, f"{text}; x = 4"))


@pytest.mark.parametrize(
    "text",
    ["Job(n=3 if IS_PROD else 4)", "SIZES = {'dev': 3, 'prod': 4}\nJob(n=SIZES[os.environ['ENV']])", "Job(n=min(4, len(files)))"],
)
def test_a_choice_among_numbers_of_the_file_is_an_edit_only_if_one_of_them_was_edited(text):
    assert not edited_fields(Spec.of({"n": 3}, text), Spec.of({"n": 4}, f"{text}\nx = 1"))
    assert edited_fields(Spec.of({"n": 4}, text), Spec.of({"n": 8}, text.replace("4", "8"))) == ("n",)


@pytest.mark.parametrize(
    "text",
    [
        "RETRIES = 3\nJob(n=RETRIES)",
        "class Config:\n    RETRIES = 3\nJob(n=Config.RETRIES)",
        "ONE = 3\nTWO = ONE\nJob(n=TWO)",
        "CONF = {'retries': 3}\nJob(n=CONF['retries'])",
        "def job(size):\n    return Job(n=size)\njob(3)",
        "def job(size=3):\n    return Job(n=size)\njob()",
        "def size():\n    return 3\nJob(n=size())",
        "for size in (3, 5):\n    Job(n=size)",
        "for name, size in [('a', 3), ('b', 5)]:\n    Job(n=size)",
        "job = {}\njob['n'] = 3\nJob(**job)",
        "Job(n=3)\nOther(n=3)",
        "each.expand(n=[3, 5])",
    ],
)
def test_an_edited_number_is_found_by_the_names_that_lead_to_it(text):
    assert edited_fields(Spec.of({"n": 3}, text), Spec.of({"n": 4}, text.replace("3", "4"))) == ("n",)


def test_a_key_that_is_computed_is_no_edit_although_it_is_a_number_of_the_file():
    one = Spec.of({"json": {"1": "x-1", "2": "x-2"}}, "json = parts(); x = 3")
    assert not edited_fields(one, Spec.of({"json": {"1": "x-1", "2": "x-2", "3": "x-3"}}, "json = parts(); x = 3; y = 1"))


def test_a_text_of_which_the_file_says_that_it_is_computed_is_no_edit_although_it_stands_elsewhere():
    text = "import os\nJob(json={'env': os.environ['ENV']}, tags=['prod', 'dev'])"
    one, other = (Spec.of({"json": {"env": env}}, text + more) for env, more in (("prod", ""), ("dev", "\nx = 1")))
    assert not edited_fields(one, other)


CHOICES = {
    "by a condition": "Job(name='full' if is_sunday() else 'part')",
    "by an entry": "STAGES = {'dev': 'part', 'prod': 'full'}\nJob(name=STAGES[os.environ['STAGE']])",
    "by an entry's entry": "STAGES = {'dev': {'name': 'part'}, 'prod': {'name': 'full'}}\nJob(**STAGES[os.environ['STAGE']])",
    "at random": "NAMES = ['full', 'part']\nJob(name=random.choice(NAMES))",
    "by an if": "if is_sunday():\n    the_name = 'full'\nelse:\n    the_name = 'part'\nJob(name=the_name)",
    "by a match": "match stage():\n    case 'dev': the_name = 'part'\n    case _: the_name = 'full'\nJob(name=the_name)",
    "by a function": "def the_name():\n    if is_sunday():\n        return 'full'\n    return 'part'\nJob(name=the_name())",
}


@pytest.mark.parametrize("text", CHOICES.values(), ids=CHOICES)
def test_a_computed_choice_among_texts_of_the_file_is_no_edit_whatever_was_edited_elsewhere(text):
    one, other = Spec.of({"name": "full"}, text), Spec.of({"name": "part"}, f"{text}\nOther(x='full', y=3)")
    assert not edited_fields(one, other)
    assert not edited_fields(other, one)
    assert moved_fields(one, other) == ("name",)
    assert edited_fields(one, Spec.of({"name": "most"}, text.replace("full", "most"))) == ("name",)


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("IS_FULL = True\nJob(name='full' if IS_FULL else 'part')", ("True", "False")),
        ("IS_FULL = True\nif IS_FULL:\n    n = 'full'\nelse:\n    n = 'part'\nJob(name=n)", ("True", "False")),
        ("STAGE = 'prod'\nSTAGES = {'dev': 'part', 'prod': 'full'}\nJob(name=STAGES[STAGE])", ("= 'prod'", "= 'dev'")),
        ("STAGES = {'dev': {'name': 'part'}, 'prod': {'name': 'full'}}\nJob(**STAGES['prod'])", ("['prod']", "['dev']")),
        ("STAGES = {'dev': {'name': 'part'}, 'prod': {'name': 'full'}}\nJob(**STAGES.get('prod'))", ("('prod')", "('dev')")),
        ("A = 'full'\nB = 'part'\nJob(name=A)", ("name=A", "name=B")),
        ("class Names:\n    A = 'full'\n    B = 'part'\nJob(name=Names.A)", ("Names.A", "Names.B")),
        ("def job(name='full'): return Job(name=name)\njob()\nother = job('part')", ("job()", "job('part')")),
        ("Job(name='full')\nOther(name='part')", ("full", "part")),
    ],
)
def test_a_choice_that_the_author_makes_in_the_file_is_an_edit(text, edit):
    assert edited_fields(Spec.of({"name": "full"}, text), Spec.of({"name": "part"}, text.replace(*edit))) == ("name",)


# Whether there is a value at all, of which kind, and which entries there are, may be computed as well.
OTHER_KINDS = {
    "None or a text": "json = {'pool': None if the_c else 'p1'}",
    "None or a number": "json = {'workers': None if the_c else 5}",
    "None or a flag": "json = {'photon': True if the_c else None}",
    "a text or a number": "json = {'workers': 'auto' if the_c else 5}",
    "a text or a flag": "json = {'workers': 'auto' if the_c else False}",
    "a number or its text": "json = {'n': '1' if the_c else 1}",
    "assigned under a condition": "the_pool = None\nif the_c:\n    the_pool = 'p1'\njson = {'pool': the_pool}",
    "one that may not be there": "the_pools = {1: 'p1'}\njson = {'pool': the_pools.get(the_c)}",
    "a number that may not be there": "the_pools = {1: 10}\njson = {'pool': the_pools.get(the_c)}",
    "computed, or else a text": "json = {'pool': ('p' * the_c * 3) or 'own'}",
    "computed, or None": "json = {'at': (str(the_c + 7)) if the_c else None}",
    "a function": "def the_f():\n    if the_c:\n        return str(the_c)\n    return 'p'\njson = {'p': the_f()}",
    "a field, or none": "json = {'a': 1}\npool = None if the_c else 'p1'",
    "a field, or an empty one": "json = {'a': 1}\npool = '' if the_c else 'p1'",
    "a dict, or none": "json = {'a': 1} if the_c else None",
    "a list, or none": "steps = ['a'] if the_c else None",
    "an inner dict, or none": "json = {'tags': {'a': 'x'} if the_c else None}",
    "an entry more": "json = {'a': 1, **({'b': 'x'} if the_c else {})}",
    "an entry that is put in": "json = {'a': 1}\nif the_c:\n    json['b'] = 'x'",
    "a number that is put in": "json = {'a': 1}\nif the_c:\n    json['b'] = 3",
    "entries by update": "json = {'a': 1}\nif the_c:\n    json.update(b='x')",
    "an entry that is taken out": "json = {'a': 1, 'b': 'x'}\nif the_c:\n    del json['b']",
    "an element more": "json = {'args': ['x'] + (['--full'] if the_c else [])}",
    "an only element": "json = {'args': ['--full'] if the_c else []}",
    "an element that is appended": "the_args = ['x']\nif the_c:\n    the_args.append('--full')\njson = {'args': the_args}",
    "another dict": "json = {'size': 'L'} if the_c else {'preset': 'p'}",
    "another dict, by name": "the_b = {'size': 'L', 'n': 5}\nthe_s = {'size': 'S'}\njson = the_b if the_c else the_s",
    "another dict, by key": "the_s = {1: {'size': 'L', 'tags': ['a', 'b']}, 0: {'size': 'S'}}\njson = {'c': the_s[the_c]}",
    "arguments that are spread": "the_kw = {}\nif the_c:\n    the_kw['pool'] = 'p1'\npool = dict(**the_kw).get('pool')",
}
UNRELATED = {
    "a comment": "# another word\n",
    "a docstring": '"""Another word."""\n',
    "a constant": "OTHER_LIMIT = 55\n",
    "a condition": "OTHER_LIMIT = 5\nif OTHER_LIMIT == 3:\n    OTHER_LIMIT = 'p1'\n",
    "another task of the same shape": "Job = dict\nJob(task_id='other', json={'pool': 'x', 'a': 2}, pool='p2', steps=['z'])\n",
}


@pytest.mark.parametrize("unrelated", UNRELATED.values(), ids=UNRELATED)
@pytest.mark.parametrize("text", OTHER_KINDS.values(), ids=OTHER_KINDS)
def test_a_choice_that_leaves_a_value_out_or_makes_one_of_another_kind_is_no_edit_whatever_was_edited_elsewhere(text, unrelated):
    one, other = (each.removeprefix("Job = dict\n") for each in ("", unrelated))
    for c in (0, 1):
        earlier = parsed(f"{one}{text}", the_c=c, Job=dict, task_id="task")
        now = parsed(f"{other}{text}", the_c=1 - c, Job=dict, task_id="task")
        assert edited_fields(earlier, now) == ()
        assert edited_fields(Spec.from_json(earlier.to_json(0)), now) == ()
        assert edited_fields(Spec.from_json(json.loads(json.dumps(earlier.to_json()))), now) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("json = {'pool': None if the_c else 'p1'}", "json = {'pool': None if the_c else 'p2'}"),
        ("json = {'pool': None if the_c else 'p1'}", "json = {'pool': None if not the_c else 'p1'}"),
        ("the_p = True\npool = None if the_p else 'p1'", "the_p = False\npool = None if the_p else 'p1'"),
        ("json = {'a': 1}\nif the_c:\n    json['b'] = 'x'", "json = {'a': 1}\nif not the_c:\n    json['b'] = 'x'"),
        ("json = {'a': 1}\njson['b'] = 'x'", "json = {'a': 1}\njson['b'] = 'y'"),
        ("json = {'a': 1}\njson.update(b='x')", "json = {'a': 1}\njson.update(b='y')"),
        ("the_a = ['x']\nthe_a.append('y')\njson = {'n': the_a}", "the_a = ['x']\nthe_a.append('z')\njson = {'n': the_a}"),
        ("the_f = lambda: 'x'\npool = the_f()", "the_f = lambda: None\npool = the_f()"),
        ("def the_f():\n    return 'x'\npool = the_f()", "def the_f():\n    return None\npool = the_f()"),
        ("the_s = {1: {'n': 'x'}, 0: {'n': None}}\njson = the_s[1]", "the_s = {1: {'n': 'x'}, 0: {'n': None}}\njson = the_s[0]"),
    ],
)
def test_where_what_a_value_comes_from_was_edited_the_edit_is_one(one, other):
    assert edited_fields(parsed(one, the_c=0), parsed(other, the_c=0))


@pytest.mark.parametrize("made", ["{'a', 'b', 'c'}", "set(['a', 'b', 'c'])", "frozenset(('a', 'b', 'c'))"])
def test_the_order_of_a_set_is_no_edit_also_where_a_list_was_made_of_it(made):
    text = f"LIBRARIES = {made}\nJob(names=list(LIBRARIES))"
    one, other = Spec.of({"names": ["a", "b", "c"]}, text), Spec.of({"names": ["c", "a", "b"]}, f"{text}\nOther(names=['z'])")
    assert not edited_fields(one, other)
    assert edited_fields(one, Spec.of({"names": ["d", "a", "b"]}, text.replace("'c'", "'d'"))) == ("names",)


@dataclass
class Dataclass:
    path: str
    workers: int
    at: str


@attrs.define
class Attrs:
    path: str
    workers: int
    at: str


class Model(pydantic.BaseModel):
    path: str
    workers: int
    at: str


@pytest.mark.parametrize("cls", [Dataclass, Attrs, Model, SimpleNamespace])
def test_the_fields_of_a_dataclass_and_its_like_count_as_the_entries_of_a_dict(cls):
    text = "import x\nJob(spec=x.Spec(path='/a', workers=2, at=now()))"
    spec = lambda text, **values: Spec.of({"spec": cls(**{"path": "/a", "workers": 2, "at": "t-1", **values})}, text)
    one = spec(text)
    for edit, values in ((("/a", "/b"), {"path": "/b"}), (("=2", "=4"), {"workers": 4})):
        assert edited_fields(one, spec(text.replace(*edit), **values, at="t-2")) == ("spec",)
    later = spec(f"{text}\nx = 1", at="t-2")
    assert not edited_fields(one, later)
    assert moved_fields(one, later) == ("spec",)


def test_an_object_that_holds_itself_counts_by_its_type():
    one, other = SimpleNamespace(path="/a"), SimpleNamespace(path="/b")
    one.itself, other.itself = [one], [other]
    assert not edited_fields(Spec.of({"spec": one}, "path = '/a'"), Spec.of({"spec": other}, "path = '/b'"))


NUMBER = st.booleans() | st.integers(-2, 9) | st.sampled_from([0.0, 0.5, 1.0, 2.5])
OF_THE_JOB = ("n", "ids", "is_full", "json", "params")
A_LINE = st.tuples(st.sampled_from(["retries", "size", "x", "workers", "wait"]), NUMBER | st.lists(NUMBER, max_size=3)).map(
    lambda pair: f"Other({pair[0]}={pair[1]!r}, **{{{pair[0]!r}: {pair[1]!r}}}); {pair[0]} = {pair[1]!r}"
)
LINES = st.lists(A_LINE, max_size=5)
MADE = st.recursive(
    NUMBER,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(OF_THE_JOB), inner, max_size=3),
    max_leaves=8,
)


def has_keys(value):
    return any(map(has_keys, value)) if isinstance(value, list) else isinstance(value, dict)


def made_anew(value, numbers, keep):
    """A value of the same shape with other numbers, and lists of another length: but no key less, which would be an edit."""
    if isinstance(value, dict):
        return {key: made_anew(entry, numbers, keep) for key, entry in value.items()}
    if isinstance(value, list):
        return [made_anew(element, numbers, keep) for element in (value[:1] if keep and not has_keys(value) else value)]
    return next(numbers)


@UNHURRIED
@given(LINES, LINES, MADE, st.lists(NUMBER, min_size=1, max_size=4), st.booleans(), st.booleans(), st.integers(0, 400))
def test_computed_numbers_and_flags_never_are_an_edit_whatever_numbers_stand_elsewhere(
    before, after, value, numbers, keep, is_there, room
):
    job = "Job(json={'params': {'n': len(files), 'ids': ids()}, 'is_full': is_full()}, n=n())" if is_there else "Job(**load())"
    later = made_anew(value, itertools.cycle(numbers), keep)
    one, other = (
        Spec.of({"json": {"n": made, "is_full": made}, "n": made}, "\n".join([*lines, job]))
        for lines, made in ((before, value), (after, later))
    )
    assert not edited_fields(one, other)
    assert not edited_fields(other, one)
    assert not edited_fields(Spec.from_json(one.to_json(room)), other)


@pytest.mark.parametrize(
    "text",
    [
        "size = os.environ.get('SIZE', 'small')",
        "size = os.getenv('SIZE', default='small')",
        "size = Variable.get('size', default_var='small')",
        "size = env()\nif size == 'small': pass",
        "size = env()\nif size in ('small', 'large'): pass",
        "size = TABLE['small']",
        "'small'\nsize = env()",
        "size = f'small{env()}'",
    ],
)
def test_a_constant_that_only_helps_to_compute_a_value_is_not_that_value(text):
    one, other = Spec.of({"size": "small"}, text), Spec.of({"size": "large"}, f"{text}\nx = 1")
    assert not edited_fields(one, other)


def test_a_choice_among_constants_of_the_file_is_no_edit_while_the_file_is_the_same():
    text = "SIZES = {'dev': 'small', 'prod': 'large'}\nsize = SIZES[os.environ['ENV']]"
    assert not edited_fields(Spec.of({"size": "small"}, text), Spec.of({"size": "large"}, text))


def test_an_unrelated_edit_is_none():
    one = parsed("sql = 'select 1'")
    assert not edited_fields(one, parsed("# a comment\nsql = 'select 1'\nthe_other = 'x'"))


@pytest.mark.parametrize("text", ["def broken(:", "\0", None], ids=["no Python", "no text", "no file"])
def test_a_file_that_cannot_be_read_is_not_comparable(text):
    one, other = Spec.of({"sql": "select 1"}, text), Spec.of({"sql": "select 2"}, "sql = 'select 2'")
    assert not edited_fields(one, other)
    assert not edited_fields(other, one)
    assert not edited_fields(None, other)
    assert not edited_fields(other, None)


# -- the fields of two releases ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "", {}, [], (), set()])
def test_a_field_that_one_side_does_not_know_and_that_is_empty_is_no_edit(value):
    text = "sql = 'a'"
    one, other = Spec.of({"sql": "a"}, text), Spec.of({"sql": "a", "environments": value}, text + "\nx = 1")
    assert one.fields == other.fields


@pytest.mark.parametrize("default", [7, "EC2", True, timedelta(1), ("a",)])
def test_a_field_at_its_default_is_as_if_it_were_not_there(default):
    assert not Spec.of({"x": default}, f"x = {default!r}", defaults={"x": default}).fields
    assert Spec.of({"x": default}, f"x = {default!r}", defaults={"x": "another"}).fields


def test_a_field_that_one_side_does_not_know_is_an_edit_if_the_author_wrote_some_of_it_and_the_file_differs():
    one, new = Spec.of({"a": 1}, "a = 1"), {"a": 1, "tags": {"team": "etl"}}
    assert edited_fields(one, Spec.of(new, "a = 1; tags = {'team': 'etl'}")) == ("tags",)
    assert not edited_fields(one, Spec.of(new, "a = 1; tags = load()"))  # computed
    same_file = "a = 1; x = {'team': 'etl'}"
    assert not edited_fields(Spec.of({"a": 1}, same_file), Spec.of(new, same_file))


HOW = """
    aws_conn_id databricks_conn_id region_name verify botocore_config wait_for_completion wait_policy waiter_delay waiters
    waiter_max_attempts poll_interval polling_period_seconds status_poll_interval deferrable awslogs_group awslogs_enabled
    awslogs_fetch_interval number_logs_exception output_files_to_xcom do_xcom_push durable resume_policy reattach
"""


@pytest.mark.parametrize("name", HOW.split())
def test_how_a_job_is_reached_waited_for_or_logged_is_not_the_job(name):
    assert not is_of_the_job(name)


def test_a_field_that_cannot_be_had_is_not_comparable():
    class Task:
        template_fields = ("sql", "broken", "missing", "aws_conn_id")
        sql, aws_conn_id = "a", "aws"

        @property
        def broken(self):
            raise RuntimeError("needs a connection")

    text, later = "sql = 'a'; broken = 'x'", "sql = 'a'; broken = 'y'"
    assert spec_values(Task()).keys() == {"sql", "broken"}
    one, other = Spec.of(spec_values(Task()), text), Spec.of({"sql": "a", "broken": "y"}, later)
    for kept in (one, Spec.from_json(json.loads(json.dumps(one.to_json())))):
        assert not edited_fields(kept, other)
        assert not edited_fields(other, kept)
        assert not moved_fields(kept, other)
    assert edited_fields(Spec.of({"sql": "a", "broken": "x"}, text), other) == ("broken",)


# -- numbers that became texts, enums ------------------------------------------------------------------------


def test_a_number_of_which_the_operator_has_made_a_text_is_what_the_author_wrote():
    def of(n):
        return Spec.of({"json": {"workers": str(n)}}, f"json = {{'workers': {n}}}", given={"json": {"workers": n}})

    assert edited_fields(of(4), of(8)) == ("json.workers",)


def test_a_computed_text_is_no_number_that_the_author_wrote_somewhere_else():
    one = Spec.of({"workers": "4"}, "workers = env(); x = 4", given={"workers": "4"})
    other = Spec.of({"workers": "8"}, "workers = env(); x = 8", given={"workers": "8"})
    assert not edited_fields(one, other)


def test_an_enum_counts_by_its_value():
    kind = Enum("Kind", {"A": "a", "B": "b"})
    assert Spec.of({"x": kind.A}, "x = 'a'") == Spec.of({"x": "a"}, "x = 'a'")


# -- the items of a mapped task ------------------------------------------------------------------------------


def test_another_item_from_upstream_is_an_edit_although_the_file_is_the_same_or_cannot_be_read():
    for text in ("x = up()", None):
        one, other = (Spec.of({"x": n}, text, items={"x": n}) for n in (1, 2))
        assert edited_fields(one, other) == ("x (from upstream)",)
        assert not edited_fields(one, Spec.of({"x": 1}, text, items={"x": 1}))


def test_many_items_are_one():
    one, other = (Spec.of({}, "", items={f"x{i}": n for i in range(50)}) for n in (1, 2))
    assert edited_fields(one, other)
    assert len(json.dumps(one.to_json())) < 100


# -- one restart for one edit --------------------------------------------------------------------------------


def test_a_spec_that_was_replaced_is_no_edit_and_a_newer_one_is():
    old, new, newer = (parsed(f"sql = 'select {n}'") for n in (1, 2, 3))
    replaced = replaced_marks((), old, new)
    assert not edited_fields(new, old, replaced)
    assert edited_fields(new, newer, replaced)
    replaced = replaced_marks(replaced, new, newer)
    assert not edited_fields(newer, old, replaced)
    assert not edited_fields(newer, new, replaced)


def test_a_replaced_spec_is_known_by_what_the_author_wrote_where_the_file_differs_in_something_else():
    old, new = parsed("sql = 'select 1'"), parsed("sql = 'select 2'")
    stale = parsed("# a comment\nsql = 'select 1'")
    assert not edited_fields(new, stale, replaced_marks((), old, new))


def test_after_a_job_of_a_stale_worker_the_edit_counts_again():
    old, new = parsed("sql = 'select 1'"), parsed("sql = 'select 2'")
    replaced = replaced_marks((), old, new)
    replaced = replaced_marks(replaced, new, old)  # its job had failed, and a stale worker submitted the next
    assert edited_fields(old, new, replaced)


def test_an_item_that_was_replaced_is_no_edit_and_a_third_one_is():
    one, two, three = (Spec.of({}, "x = up()", items={"x": n}) for n in (1, 2, 3))
    replaced = replaced_marks((), one, two)
    assert not edited_fields(two, one, replaced)
    assert edited_fields(two, three, replaced)


def test_what_a_record_keeps_of_replaced_specs_is_bounded():
    replaced: tuple[str, ...] = ()
    for n in range(50):
        replaced = replaced_marks(replaced, parsed(f"sql = {n}"), parsed(f"sql = {n + 1}"))
    assert len(json.dumps(replaced)) < 120
    assert not edited_fields(parsed("sql = 50"), parsed("sql = 49"), replaced)


# -- what is kept --------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-3, 300) | st.text("ab {}", max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc.", max_size=3), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(st.sampled_from(["json", "steps", "name", "conf", "tags"]), VALUES, max_size=5)


def file_of(fields):
    return "\n".join(f"{name} = {value!r}" for name, value in fields.items())


@UNHURRIED
@given(FIELDS, FIELDS)
def test_a_spec_says_the_same_after_it_was_kept(one, other):
    one, other = Spec.of(one, file_of(one)), Spec.of(other, file_of(other))
    again = Spec.from_json(json.loads(json.dumps(one.to_json())))
    assert edited_fields(again, other) == edited_fields(one, other)
    assert moved_fields(again, other) == moved_fields(one, other)
    assert again.literals == one.literals
    assert not edited_fields(again, one)


@UNHURRIED
@given(FIELDS, FIELDS, st.integers(0, 400))
@example({"json": [None]}, {"json": {"": None}}, 0)  # of neither the author wrote some: only its type says that there was an edit
@example({"json": ["a", None]}, {"json": ["b", None]}, 0)
def test_a_spec_that_was_kept_in_less_room_still_tells_edits_of_what_was_written_and_no_others(one, other, room):
    one, other = Spec.of(one, file_of(one)), Spec.of(other, file_of(other))
    kept = Spec.from_json(json.loads(json.dumps(one.to_json(room))))
    edited = edited_fields(one, other)
    if not edited or any(has_literal(spec.fields.get(name, UNKNOWN_CODE)) for name in edited for spec in (one, other)):
        assert bool(edited_fields(kept, other)) == bool(edited)
    assert not edited_fields(kept, one)
    assert kept.literals == one.literals


def computed(values):
    """The same values, moved: no text and no number of them is as it was."""
    if isinstance(values, dict):
        return {key: computed(value) for key, value in values.items()}
    if isinstance(values, list):
        return [computed(value) for value in values]
    if isinstance(values, str):
        return f"{values}-{uuid.uuid4()}"
    return values if values is None or isinstance(values, bool) else values + 10**9


@UNHURRIED
@given(FIELDS, FIELDS)
def test_computed_values_move_beside_what_is_written_and_that_is_no_edit(fields, unrelated):
    file = "task = Operator(**load())"
    one = Spec.of(computed(fields), file)
    other = Spec.of(computed(fields), f"{file}\n{file_of(unrelated)}" if unrelated else file)
    if one.text == other.text:
        assert not edited_fields(one, other)
    else:
        assert not [name for name in edited_fields(one, other) if not holds_flag(fields[name.split(".")[0]])]


def holds_flag(value):
    """Whether a key or a flag is in it: those may happen to stand in the unrelated part of the file."""
    if isinstance(value, dict):
        return True
    return any(map(holds_flag, value)) if isinstance(value, list) else isinstance(value, bool)


@UNHURRIED
@given(FIELDS, FIELDS)
def test_every_edit_of_a_written_field_is_seen_by_its_name(one, other):
    seen = {name.split(".")[0] for name in edited_fields(Spec.of(one, file_of(one)), Spec.of(other, file_of(other)))}
    for name in one.keys() & other.keys():
        if isinstance(one[name], str | int) and isinstance(other[name], str | int) and one[name] and other[name]:
            assert (name in seen) == (repr(one[name]) != repr(other[name]))


def test_a_whole_record_of_an_operator_with_many_fields_is_small():
    many = {f"argument_number_{i}": {"key": f"value {i}"} for i in range(35)}
    record = JobRecord("databricks", "t" * 48, Generation(1, 0, "2026-01-01T00:00:00+00:00", 3), 0, "o" * 12, 1, 1.0)
    reach = {"operator": "resumable.operators.databricks:ResumableDatabricksOperator", "databricks_conn_id": "default"}
    record = replace(record, spec=Spec.of(many, file_of(many)), reach=reach, replaced=tuple("abcde" for _ in range(12)))
    record = record.with_handle(JobHandle("databricks", {"run_id": 123456789012}, {"workspace": "adb-1.net"}), 2.0)
    assert len(json.dumps(record.to_json())) <= MAX_BYTES
    assert JobRecord.from_json(record.to_json()).spec.literals == record.spec.literals


OTHERS = [None, {}, [], "x", {"v": 2, "text": "x", "fields": {}}, {"v": 1}, {"v": 1, "text": 5, "fields": 5}]


@pytest.mark.parametrize("data", OTHERS)
def test_a_fingerprint_that_cannot_be_read_is_not_comparable(data):
    spec = Spec.from_json(data)
    assert not edited_fields(spec, parsed("sql = 'select 1'"))
    assert not edited_fields(parsed("sql = 'select 1'"), spec)


@UNHURRIED
@given(VALUES)
def test_whatever_a_fingerprint_holds_it_is_read(data):
    for value in (data, {"v": 1, "text": data, "fields": data}, {"v": 1, "text": "x", "fields": {"a": data}, "items": data}):
        assert not edited_fields(Spec.from_json(value), Spec())


# -- the log line --------------------------------------------------------------------------------------------


def test_moved_fields_are_named_down_to_the_entry_of_a_dict():
    def of(n):
        return Spec.of({"json": {"run_name": f"at {n}", "size": 4}, "note": f"n{n}", "sql": "a"}, "x = {'size': 4, 'sql': 'a'}")

    assert moved_fields(of(1), of(2)) == ("json.run_name", "note")
    assert not moved_fields(of(1), of(1))
    kept_small = Spec.from_json(of(1).to_json(0))
    assert moved_fields(kept_small, of(2)) == ("its arguments",)
    assert not moved_fields(kept_small, of(1))
    without_entries = Spec.from_json(of(1).to_json(130))
    assert set(without_entries.fields) == {"json", "note", "sql"}
    assert moved_fields(without_entries, of(2)) == ("json", "note")


def test_a_field_that_was_at_its_default_is_named_when_it_has_moved():
    one, other = (Spec.of({"kind": kind}, "x = load()", defaults={"kind": "full"}) for kind in ("full", "part"))
    assert moved_fields(one, other) == moved_fields(other, one) == ("kind",)


def test_a_log_line_names_a_few_fields():
    assert named("abc") == "a, b, c"
    assert named("abcdefgh") == "a, b, c, d, e and 3 more"


def test_the_constants_of_a_file_are_found_without_running_it():
    text = "raise SystemExit\nsql = 'select 1'"
    assert edited_fields(Spec.of({"sql": "select 1"}, text), Spec.of({"sql": "select 2"}, "sql = 'select 2'"))


# -- attempts --------------------------------------------------------------------------------------------------------


class Bench:
    """Attempts at one task, one after the other, at a service in memory."""

    def __init__(self):
        self.service = FakeService(Recovery.REPEAT, Clock())
        self.store, self.log, self.tries = FaultyStore(), Lines(), 0

    def job_of(self, word, **choices):
        """The job of an attempt whose DAG file has this word in it, and computes something at each parse."""
        self.tries += 1
        spec = Spec.of({"job": {"word": word, "at": f"t-{self.tries}"}}, f"job = make({word!r})")
        attempt = new_attempt(self.service, self.store, spec=spec, log=self.log, try_number=self.tries, **choices)
        start(attempt, self.service)
        return attempt.handle.ids


@pytest.mark.parametrize("cleared", [False, True], ids=["retry", "clear"])
def test_a_worker_with_the_file_from_before_an_edit_keeps_the_job_of_after_it(cleared):
    bench = Bench()
    choices = {"generation": CLEARED, "on_clear": "reattach"} if cleared else {}
    first = bench.job_of("old")
    second = bench.job_of("new", **choices)
    assert first != second
    assert bench.job_of("old", **choices) == second
    assert "is as it was before an edit here" in bench.log.at("info")[-1]
    assert bench.job_of("new", **choices) == second
    assert bench.job_of("newer", **choices) != second


def test_what_moved_is_named_in_the_line_of_the_reattachment():
    bench = Bench()
    assert bench.job_of("old") == bench.job_of("old")
    assert "although job.at moved: it is computed when the DAG file is parsed" in bench.log.at("info")[-1]


def test_an_edit_is_named_in_the_line_of_the_restart():
    bench = Bench()
    assert bench.job_of("old") != bench.job_of("new")
    assert "the author changed job.word, on_change=restart" in bench.log.at("info")[-1]


@pytest.mark.parametrize(("one", "other"), EDITS.values(), ids=EDITS)
def test_an_edit_is_told_from_what_a_worker_kept_that_knew_of_no_origins(one, other):
    earlier, now = parsed(one, **HELPERS), parsed(other, **HELPERS)
    before = Spec.from_json({name: value for name, value in earlier.to_json().items() if name != "origins"})
    assert edited_fields(before, now)
    assert edited_fields(before, earlier) == ()
