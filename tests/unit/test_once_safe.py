"""`once`: what is in use is never removed, what is dead never handed out, what is left never passed over in silence."""

from __future__ import annotations

import asyncio
import enum
import functools
import json
import logging
import random
import sys
import time
from types import SimpleNamespace

import pytest

from resumable import ConfigurationError, StateStoreError, once
from resumable.errors import SupersededError
from tests.support.checkpointed import Cloud, Task, WorkError, stopped_task, task, until, variables  # noqa: F401
from tests.support.names import AirflowFailException, AirflowTaskTimeout
from tests.support.runner import Effects, StateStoreDouble

# ruff: noqa: F811

pytestmark = pytest.mark.usefixtures("no_waiting")

KEY = "resumable.once.c"


class Refused(Exception):
    """What the server of Airflow 3.3 answers to a try that it has given up."""

    error = SimpleNamespace(detail={"status_code": 404, "detail": {"message": "Task instance not found"}})


class Fenced(StateStoreDouble):
    """Task state of 3.3: of a try that was given up, writes are refused and reads say that there is nothing."""

    is_given_up = is_down = False

    def get(self, key, default=None):
        return default if self.is_given_up else super().get(key, default)

    def set(self, key, value, *, retention=None):
        if self.is_given_up:
            raise Refused
        if self.is_down:
            raise OSError("no route")
        super().set(key, value)


def fenced(task):
    context = task.context()
    context["task_state_store"] = store = Fenced(task.data, Effects(), lambda verb: False)
    return context, store


class Named:
    """A service where a cluster is found by its name, which the token is part of."""

    def __init__(self):
        self.alive = {}

    def create(self, token):
        self.alive[f"nightly-{token}"] = True
        return f"nightly-{token}"

    def delete(self, name):
        self.alive[name] = False


# -- an attempt that Airflow has given up -----------------------------------------------------------------------------


def test_a_try_that_is_given_up_while_it_creates_leaves_the_cluster_to_its_successor(task, caplog):
    cloud, values = Named(), []
    context, store = fenced(task)

    def slow(token):
        made = cloud.create(token)
        store.is_given_up = True
        values.append(once("c", cloud.create, cleanup=cloud.delete, context=fenced(task)[0]))
        return made

    with pytest.raises(SupersededError):
        once("c", slow, cleanup=cloud.delete, context=context)
    assert cloud.alive == {values[0]: True}
    assert "is left: Airflow has given this try up" in caplog.text


@pytest.mark.parametrize("kind", ["on_success_callback", "on_failure_callback", "on_skipped_callback"])
def test_a_try_that_is_given_up_and_ends_its_work_cleans_nothing_up(task, kind):
    """Airflow runs the callbacks of a process whatever its server said to it."""
    cloud = Named()
    context, store = fenced(task)
    value = once("c", cloud.create, cleanup=cloud.delete, context=context)
    given_up = task.operator
    store.is_given_up = True
    assert once("c", cloud.create, cleanup=cloud.delete, context=fenced(task)[0]) == value
    for callback in getattr(given_up, kind):
        callback({})
    assert cloud.alive == {value: True}
    task.end(kind)
    assert cloud.alive == {value: False}


@pytest.mark.usefixtures("variables")
def test_the_same_holds_for_variables_which_fence_nothing(task):
    cloud = Named()
    value = once("c", cloud.create, cleanup=cloud.delete, context=task.context())
    given_up = task.operator
    assert once("c", cloud.create, cleanup=cloud.delete, context=task.context()) == value
    given_up.on_failure_callback[0]({})
    assert cloud.alive == {value: True}
    task.end("on_failure_callback")
    assert cloud.alive == {value: False}


@pytest.mark.usefixtures("variables")
def test_an_old_try_that_wakes_up_after_a_clear_touches_nothing(task):
    """What it reads is of a later generation, which is no clear of its own."""
    cloud = Named()
    old = task.context()
    task.clear()
    value = once("c", cloud.create, cleanup=cloud.delete, context=task.context())
    with pytest.raises(SupersededError):
        once("c", cloud.create, cleanup=cloud.delete, context=old)
    assert cloud.alive == {value: True}


def test_a_store_that_does_not_answer_at_the_end_leaves_the_cluster_and_says_so(task, caplog):
    """Whether another try works with it is not known then."""
    cloud = Named()
    context, store = fenced(task)
    value = once("c", cloud.create, cleanup=cloud.delete, context=context)
    store.is_down = True
    task.end()
    assert cloud.alive == {value: True}
    assert "is not cleaned up" in caplog.text


def test_a_clean_up_that_a_process_died_in_is_repeated_and_its_value_never_used_again(task):
    cloud = Cloud()

    class Died(BaseException):
        pass

    def dies(value):
        raise Died

    first = once("c", cloud.create, cleanup=dies, context=task.context())
    with pytest.raises(Died):
        task.end()
    assert once("c", cloud.create, cleanup=cloud.remove, context=task.context()) != first
    assert cloud.removed == [first]


# -- a value that is dead ---------------------------------------------------------------------------------------------


def test_a_value_that_is_dead_is_cleaned_up_and_made_anew_under_another_token(task):
    cloud, dead = Cloud(), set()

    def get():
        return once("c", cloud.create, cleanup=cloud.remove, alive=lambda value: value not in dead, context=task.context())

    first = get()
    assert get() == first
    dead.add(first)
    second = get()
    assert second != first
    assert cloud.removed == [first]
    assert len(cloud.made) == 2
    task.end()
    assert cloud.removed == [first, second]


def test_a_service_that_cannot_say_whether_it_is_alive_fails_the_try_and_removes_nothing(task):
    cloud = Cloud()

    def alive(value):
        raise ConnectionError

    once("c", cloud.create, cleanup=cloud.remove, alive=alive, context=task.context())
    with pytest.raises(ConnectionError):
        once("c", cloud.create, cleanup=cloud.remove, alive=alive, context=task.context())
    assert cloud.removed == []
    assert task.data[KEY]["state"] == "made"


def test_one_attempt_that_asks_again_cleans_up_what_it_was_given_last_and_once(task):
    cloud, context, dead = Cloud(), task.context(), set()
    values = []
    for _ in range(3):
        values.append(once("c", cloud.create, cleanup=cloud.remove, alive=lambda value: value not in dead, context=context))
        if len(values) == 2:
            dead.add(values[0])
    assert values[0] == values[1] != values[2]
    task.end()
    assert cloud.removed == [values[0], values[2]]


# -- what a create leaves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "words"), [(False, "The next try calls create with the same token"), (True, "the last try")])
def test_what_a_create_that_failed_may_have_left_is_said(task, caplog, last, words):
    tokens = []

    def create(token):
        tokens.append(token)
        raise WorkError

    task.try_number = 3 if last else 0
    with pytest.raises(WorkError):
        once("c", create, cleanup=lambda value: None, context=task.context())
    assert words in caplog.text
    assert tokens[0] in caplog.text


def test_without_a_token_the_words_are_others(task, caplog):
    with pytest.raises(WorkError):
        once("c", lambda: (_ for _ in ()).throw(WorkError), context=task.context())
    assert "Look for it by hand" in caplog.text


def test_what_could_not_be_kept_is_left_to_the_next_try_if_it_bears_a_token_else_cleaned_up(task):
    for takes_token in (True, False):
        task, removed = Task(), []
        context, store = fenced(task)

        def create(token=None, store=store):
            store.is_down = True
            return f"cluster {token}"

        made = create if takes_token else lambda create=create: create()
        with pytest.raises(Exception, match="could not be written"):
            once("c", made, cleanup=removed.append, context=context)
        assert len(removed) == (0 if takes_token else 1)
        tokens = []
        once("c", lambda token, tokens=tokens: tokens.append(token) or token, context=fenced(task)[0])
        if takes_token:
            assert tokens == [task.data[KEY]["token"]]


def test_after_a_clean_up_of_what_could_not_be_kept_the_token_is_another_one(task, monkeypatch):
    tokens = []

    def create(token):
        tokens.append(token)
        return {1, 2} if len(tokens) == 1 else token

    with pytest.raises(AirflowFailException):
        once("c", create, cleanup=lambda value: None, context=task.context())
    monkeypatch.setattr(time, "time", lambda: 5e8)
    once("c", create, context=task.context())
    assert len(set(tokens)) == 2


# -- odd functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("create", "value"),
    [
        (dict, {}),
        (time.time, None),
        (functools.partial(next, iter(["x"])), "x"),
        (lambda token, /: token[:0] + "by place", "by place"),
        (lambda token=None: "by name" if token else "none", "by name"),
        (type("Create", (), {"__call__": lambda self, token: "an object"})(), "an object"),
    ],
)
def test_anything_that_can_be_called_creates(task, create, value):
    made = once("c", create, context=task.context())
    assert made == value or value is None
    assert once("c", create, context=task.context()) == made


@pytest.mark.parametrize("seed", range(100))
def test_whatever_dies_when_no_more_than_one_resource_is_there_and_it_is_the_one_in_use(seed):
    """Deaths before and after each call of the store, dead values, clears: all but the last one were removed."""
    draw, task, there = random.Random(seed), Task(), {}
    task.max_tries = 99

    class Died(BaseException):
        pass

    def create(token):
        there[token] = True
        return token

    for _ in range(25):
        context = task.context()
        effects = context["task_state_store"]._effects
        at = draw.randint(0, 6)

        def listener(call, effects=effects, at=at):
            if len(effects.done) > at:
                effects.dead = True
                raise Died

        if draw.random() < 0.6:
            effects.listener = listener
        if draw.random() < 0.2:
            task.clear()
            task.max_tries = task.try_number + 99
        try:
            value = once("c", create, cleanup=lambda name: there.update({name: False}), alive=there.get, context=context)
        except Died:
            continue
        assert there[value], "a dead one was handed out"
        if draw.random() < 0.2:
            there[value] = False  # a spot instance goes
    effects.listener = None
    value = once("c", create, cleanup=lambda name: there.update({name: False}), alive=there.get, context=task.context())
    assert [name for name, is_there in there.items() if is_there] == [value]
    assert logging.getLogger("resumable")


# -- what people write by mistake -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refused", "cleaned up", "its clean-up failed", "could not be kept"])
def test_no_log_shows_what_is_secret_in_a_value(task, caplog, how):
    """Whatever becomes of it: a value that was refused for its secret as well."""
    caplog.set_level(logging.INFO)
    value = {"id": "c-1", "password": "hunter2", "url": "https://me:hunter2@host/x?sig=hunter2"}
    kept = value if how == "refused" else {"id": "c-1", "url": value["url"]}

    def cleanup(made):
        if how == "its clean-up failed":
            raise ConnectionError(f"no answer from {made['url']}")

    def create(token):
        store.is_down = how == "could not be kept"
        return kept

    context, store = fenced(task)
    try:
        once("c", create, cleanup=cleanup, context=context)
    except (AirflowFailException, StateStoreError) as e:
        assert "hunter2" not in str(e)
    task.end()
    assert "c-1" in caplog.text
    assert "hunter2" not in caplog.text


async def is_alive(value):
    return False


NO_ARGUMENT, TWO_ARGUMENTS = (lambda: True), (lambda one, other: True)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"alive": is_alive}, {"create": None}, {"create": "cluster"}, {"cleanup": "cluster"}, {"alive": True}),
        *({"cleanup": NO_ARGUMENT}, {"alive": NO_ARGUMENT}, {"cleanup": TWO_ARGUMENTS}, {"alive": TWO_ARGUMENTS}),
        *({"create": TWO_ARGUMENTS}, {"create": lambda value: value}, {"create": lambda token, region: token}),
    ],
)
def test_what_cannot_be_called_and_coroutine_functions_fail_the_task_before_anything_is_made(task, wrong):
    made = []
    arguments = {"create": lambda: made.append(1) or "c", **wrong}
    with pytest.raises(ConfigurationError, match="Nothing was made") as raised:
        once("c", context=task.context(), **arguments)
    assert isinstance(raised.value, AirflowFailException)
    assert not made
    assert not task.data


@pytest.mark.parametrize("answer", [lambda value: None, lambda value: is_alive(value)])
def test_an_alive_that_says_nothing_removes_nothing(task, answer):
    """A function without a return, or one that was to be awaited: neither says that the value is dead, or alive."""
    cloud = Named()
    value = once("c", cloud.create, cleanup=cloud.delete, context=task.context())
    with pytest.raises(AirflowFailException, match="neither True nor False"):
        once("c", cloud.create, cleanup=cloud.delete, alive=answer, context=task.context())
    assert cloud.alive == {value: True}


def test_a_create_that_wants_no_other_try_leaves_its_token_to_a_person(task, caplog):
    def create(token):
        raise AirflowFailException("no quota")

    with pytest.raises(AirflowFailException, match="no quota"):
        once("c", create, context=task.context())
    assert "This was the last try: look for what bears the token" in caplog.text


@pytest.mark.parametrize("value", ["caf\udce9", 2**64, {"id": [-(2**63) - 1]}], ids=repr)
def test_a_value_that_airflow_does_not_take_is_cleaned_up_and_says_so_at_once(task, value):
    removed = []
    with pytest.raises(AirflowFailException, match="JSON cannot carry, or task state"):
        once("c", lambda: value, cleanup=removed.append, context=task.context())
    assert removed == [value]


@pytest.mark.parametrize("error", [AirflowTaskTimeout("timed out"), KeyboardInterrupt(), SystemExit(1)], ids=repr)
@pytest.mark.parametrize("wants_token", [True, False], ids=["token", "no token"])
def test_what_a_create_that_is_broken_off_may_have_left_is_told(task, caplog, error, wants_token):
    """``execution_timeout`` is no `Exception` on Airflow 3."""

    def create(token):
        raise error

    task.try_number = 3  # of three retries: no other try follows
    with pytest.raises(type(error)):
        once("c", create if wants_token else lambda: create(""), context=task.context())
    assert f"create failed ({type(error).__name__}), and what it may have made is not known" in caplog.text
    assert ("This was the last try" if wants_token else "Look for it by hand") in caplog.text


def test_a_clean_up_that_exits_keeps_no_other_from_being_called(task, caplog):
    """The function of a command of click's ends with ``sys.exit()``."""
    context, removed = task.context(), []
    once("a", lambda: 1, cleanup=removed.append, context=context)
    once("b", lambda: 2, cleanup=lambda value: sys.exit(3), context=context)
    task.end()
    assert removed == [1]
    assert "the clean-up of 2 failed: SystemExit(3). Remove it by hand" in caplog.text


# -- what the task does with what it was given ------------------------------------------------------------------------


class Size(str, enum.Enum):
    SMALL = "small"


class Answer(dict):
    pass


@pytest.mark.parametrize("value", [Size.SMALL, {"size": Size.SMALL}, Answer(id="j-1"), [Answer(id="j-1")], True, 1.0, "", 0, []])
def test_every_try_is_given_a_value_of_the_same_types(task, value):
    given = [once("c", lambda: value, context=task.context()) for _ in range(3)]
    texts = [[json.dumps(one), type(one), [type(part) for part in one] if isinstance(one, list) else None] for one in given]
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("in_try", [1, 2])
@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(client=object()),
        dict.clear,
        lambda value: value["ids"].clear(),
        lambda value: value.update(id="j-2"),
    ],
)
def test_what_the_task_does_to_the_value_changes_nothing_of_what_is_cleaned_up(task, in_try, change):
    removed = []
    for _ in range(in_try):
        given = once("c", lambda: {"id": "j-1", "ids": ["a"]}, cleanup=removed.append, context=task.context())
    change(given)
    task.end()
    assert removed == [{"id": "j-1", "ids": ["a"]}]
    assert task.data[KEY]["state"] == "cleaned up"


@pytest.mark.parametrize("which", ["create", "alive"])
def test_a_function_that_finds_nothing_keeps_no_coroutine_waiting(task, which):
    """A StopIteration never ends a future of asyncio before Python 3.12."""
    functions = {"create": lambda: "x", "alive": lambda value: True}
    once("c", **functions, context=task.context())
    task.clear() if which == "create" else None

    async def run():
        finds_nothing = {which: lambda *_: next(iter([]))}
        await asyncio.wait_for(asyncio.to_thread(once, "c", **{**functions, **finds_nothing}, context=task.context()), 20)

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(run())


async def removed_later(value):
    pass


@pytest.mark.parametrize(
    "answer", [lambda value: removed_later(value), lambda value: map(str, [value]), lambda value: (yield value)]
)
def test_a_clean_up_that_is_only_begun_is_not_said_to_be_done(task, caplog, answer):
    context = task.context()
    once("c", lambda: "cluster-1", cleanup=answer, context=context)
    task.end()
    assert "the clean-up of 'cluster-1' failed" in caplog.text
    assert "nobody goes on with that" in caplog.text
    assert task.data[KEY]["state"] == "made"


def test_a_token_that_the_author_has_given_is_the_authors(task):
    """It may be one to log in with."""
    create = functools.partial(lambda name, token: [name, token], "c", token="of the author")
    assert once("c", create, context=task.context()) == ["c", "of the author"]
