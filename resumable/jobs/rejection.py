"""
What an exception of a client library says about a request: that nothing came of it, that nobody can know, or nothing at all.

Only what proves that no job was made is a rejection; everything else leaves a doubt. The libraries are told by the attributes
that they document, and none is imported: requests, httpx (2 too), aiohttp, urllib and urllib3, botocore, grpc, google-api-core,
kubernetes, and whatever has their attributes.
"""

from __future__ import annotations

import functools
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.client import responses
from importlib import import_module
from types import FrameType
from typing import Any

from resumable import host
from resumable.errors import NotSubmitted, chain

_UNSURE = frozenset({408, 409, 429, 499})
"""Refusals that do not prove it: timed out, in conflict with what is there, too many (perhaps after a repetition), hung up."""

_GRPC_REFUSALS = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
    }
)
_GRPC_UNSENT = re.compile(r"(?i)failed to connect to all addresses|(DNS|name) resolution failed|errors resolving")

_ASKER = re.compile(
    r"(?i)AccessDenied|ExpiredToken|Unrecognized|Unauthori[sz]ed|Signature|InvalidClientToken|Throttl|TooManyRequests"
)
"""Error codes of AWS that many of its services answer with the status 400."""

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_READING_OPERATION = re.compile(r"(Get|Describe|List|BatchGet|Head|Search)(?![a-z])")

_UNSENT_BY_LIBRARY = {
    "requests": "ConnectTimeout InvalidURL MissingSchema InvalidSchema",
    "urllib3": "NewConnectionError ConnectTimeoutError",
    "httpx": "ConnectError ConnectTimeout PoolTimeout InvalidURL UnsupportedProtocol",
    "httpcore": "ConnectError ConnectTimeout",
    "httpx2": "ConnectError ConnectTimeout PoolTimeout InvalidURL UnsupportedProtocol",
    "httpcore2": "ConnectError ConnectTimeout",
    "aiohttp": "ClientConnectorError ConnectionTimeoutError InvalidURL",
    "botocore": "EndpointConnectionError ConnectTimeoutError ProxyConnectionError ParamValidationError ValidationError "
    "NoCredentialsError PartialCredentialsError CredentialRetrievalError TokenRetrievalError NoAuthTokenError SSOError "
    "LoginError BaseEndpointResolverError EndpointProviderError InvalidEndpointConfigurationError DataNotFoundError "
    "ProfileNotFound ConfigNotFound ConfigParseError MissingDependencyException MissingParametersError "
    "UnsupportedSignatureVersionError",
}
_UNSENT = frozenset((library, name) for library, names in _UNSENT_BY_LIBRARY.items() for name in names.split())
"""Exceptions that are raised before a connection is there, or before one is asked for: library and class."""

_CLIENT_LIBRARIES = frozenset(
    {"requests", "urllib3", "httpx", "httpcore", "httpx2", "httpcore2", "aiohttp", "botocore", "grpc", "google"}
    | {"kubernetes", "paramiko", "http"}
)
_TROUBLE = re.compile(r"(?i)timeout|timed_?out|connection|disconnect|unavailable|throttl|^operationalerror$")

_MISREAD = (KeyError, IndexError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError)
"""What comes of an answer that is not what it should be."""


_PAGE = re.compile(r"(?i)<(!doctype|html|head|body)\b")

_INTERNAL = re.compile(r"Internal|ServiceUnavailable|Server(Error|Exception)")
"""How the codes of a service's own failures begin."""


def proves_nothing_made(error: BaseException) -> bool:
    """
    Whether ``error``, raised by a submit, proves that no job was made.

    It does if it is `NotSubmitted`, Airflow's "no such connection", a 4xx answer of the service to the submit itself (but not
    408, 409, 429; of AWS not a proxy's page), or an error from before the request was sent: no connection (refused, DNS, TLS) or
    no valid request. An exception that was raised *from* such a one does, too. One that was merely raised while another was
    handled does not, unless it repeats its words: between the two something else may have been sent.
    """
    return _proves(error, frozenset())


def _proves(error: BaseException, seen: frozenset[int], *, looks_back: bool = True) -> bool:
    if id(error) in seen:
        return False
    seen |= {id(error)}
    if parts := _parts(error):
        return all(_proves(part, seen, looks_back=looks_back) for part in parts)
    if isinstance(error, NotSubmitted) or host.is_not_found(error):
        return True
    if _gave_up_after_several(error):
        return False  # the last of several requests says nothing of the others
    verdict = _verdict(error)
    if verdict is None:
        return any(_proves(cause, seen, looks_back=looks_back) for cause in _causes(error))
    return verdict and not (looks_back and came_after_a_loss(error))


def refuses_repetition(error: BaseException) -> bool:
    """
    Whether ``error``, raised by the repetition of a submit, is the service's answer that it will not repeat it: a 4xx, a conflict
    (409) included, that has nothing to do with who asks (401, 403), when (429) or how long (408).
    """
    for cause in chain(error):
        status = status_of(cause)
        words = re.search(r"Status Code: (4\d\d)", str(cause))
        if status is None and words is not None:
            status = int(words[1])
        if status is not None:
            is_no = 400 <= status < 500 and status not in {401, 403, 407, 408, 429, 499}
            return is_no and not _ASKER.search(_error_code(cause)) and not is_page(_answer_of(cause))
        if (code := _grpc_code(cause)) is not None:
            return code in _GRPC_REFUSALS - {"PERMISSION_DENIED", "UNAUTHENTICATED"} or code in {"ALREADY_EXISTS", "ABORTED"}
    return False


def _answer_of(error: BaseException) -> Any:
    """The ``Error`` of botocore's; None of another exception."""
    response = getattr(error, "response", None)
    return response.get("Error", {}) if isinstance(response, Mapping) else None


def _error_code(error: BaseException) -> str:
    answer = _answer_of(error)
    return str(answer.get("Code", "")) if isinstance(answer, Mapping) else ""


def is_only_of_the_wait(error: BaseException) -> bool:
    """
    Whether ``error``, raised by a wait, speaks of a request or of its answer, and not of the job: a connection that broke, a
    status of HTTP or gRPC, an answer that cannot be read. What the job came to has to be asked for then.
    """
    return isinstance(error, _MISREAD) or status_of(error) is not None or _is_trouble(error, frozenset())


def _is_trouble(error: BaseException, seen: frozenset[int]) -> bool:
    if id(error) in seen:
        return False
    seen |= {id(error)}
    if parts := _parts(error):
        return all(_is_trouble(part, seen) for part in parts)
    status = status_of(error)
    if status is not None:
        return not is_refusal(status)
    if isinstance(error, OSError | EOFError) or any(_TROUBLE.search(name) for _, name in _named(error)):
        return True
    if _grpc_code(error) is not None or {library for library, _ in _named(error)} & _CLIENT_LIBRARIES:
        return True
    return any(_is_trouble(cause, seen) for cause in _causes(error, all_contexts=True))


def is_refusal(status: int) -> bool:
    """Whether an HTTP status says that the service did not do what it was asked for."""
    return 400 <= status < 500 and status not in _UNSURE


def is_internal(error: Any) -> bool:
    """
    Whether botocore's parsed ``Error`` is the service's own failure, whatever status it came with: EMR answers with 400 and an
    InternalServerError (its API reference), which says nothing of what became of a submit.
    """
    return isinstance(error, Mapping) and bool(_INTERNAL.match(str(error.get("Code") or "")))


def is_page(error: Any) -> bool:
    """
    Whether botocore's parsed ``Error`` is of an answer that is not in the service's words: the page of a proxy, say, which has
    read the answer and does not let it through, or nothing at all. Botocore finds no code in it, and gives it the HTTP status as
    one, or none; of one where it looks for XML it gives the phrase of that status as well.
    """
    if not isinstance(error, Mapping):
        return False
    code, words = (str(error.get(name) or "").strip() for name in ("Code", "Message"))
    if code and not code.isdigit():
        return False
    return not words or bool(_PAGE.match(words)) or words == responses.get(int(code or 0))


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an exception carries, by the attributes of the libraries named above."""
    if _is_misread_by_aiohttp(error):
        return None
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        if is_internal(response.get("Error")):
            return 500
        metadata = response.get("ResponseMetadata")
        return _number(metadata.get("HTTPStatusCode")) if isinstance(metadata, Mapping) else None
    for of in (response, getattr(error, "resp", None)):
        for name in ("status_code", "status"):
            if (status := _number(getattr(of, name, None))) is not None:
                return status
    if not host.is_airflow_error(error):  # whose classes have a status_code for Airflow's own API
        for name in ("status_code", "status", "http_status"):
            if (status := _number(getattr(error, name, None))) is not None:
                return status
    return _number(getattr(error, "http_status_code", None)) or _code_of(error)


def _is_misread_by_aiohttp(error: BaseException) -> bool:
    """It gives an answer that is no HTTP, or was cut short, the status 400."""
    of = (error, error.__cause__)
    return any(("aiohttp", "HttpProcessingError") in _named(one) for one in of if one is not None)


def _code_of(error: BaseException) -> int | None:
    """``code``, where it is HTTP's: those of a database's errors look just the same."""
    code = getattr(error, "code", None)
    status = _number(code)
    if status is None or isinstance(code, HTTPStatus):
        return status
    is_http = any(hasattr(error, name) for name in ("response", "headers", "grpc_status_code"))
    phrases = {member.phrase.replace(" ", "").lower() for member in HTTPStatus}
    return status if is_http or phrases & {cls.__name__.lower() for cls in type(error).__mro__} else None


def _number(value: Any) -> int | None:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600 else None


def _verdict(error: BaseException) -> bool | None:
    """What the exception itself says, whatever led to it; None: nothing."""
    status = status_of(error)
    if status is not None:
        is_no = is_refusal(status) and not is_page(_answer_of(error))
        return is_no and not _is_of_a_read(error) and not _was_sent_again(error)
    code = _grpc_code(error)
    if code is not None:
        unsent = code == "UNAVAILABLE" and _GRPC_UNSENT.search(_details(error))
        return code in _GRPC_REFUSALS or bool(unsent)
    if isinstance(error, ConnectionRefusedError | socket.gaierror) or _UNSENT & set(_named(error)):
        return True
    if isinstance(error, ssl.SSLError):
        return isinstance(error, ssl.SSLCertVerificationError) or any(f.f_code.co_name == "do_handshake" for f in _frames(error))
    return None


def _named(error: BaseException) -> Iterator[tuple[str, str]]:
    return ((cls.__module__.partition(".")[0], cls.__name__) for cls in type(error).__mro__)


def _parts(error: BaseException) -> list[BaseException]:
    """The exceptions of a group."""
    parts = getattr(error, "exceptions", None)
    return [part for part in parts if isinstance(part, BaseException)] if isinstance(parts, tuple | list) else []


def _is_of_a_read(error: BaseException) -> bool:
    """The answer is one to a question, and so not one to the submit."""
    operation = getattr(error, "operation_name", None)  # botocore
    if isinstance(operation, str):
        return _READING_OPERATION.match(operation) is not None
    response = getattr(error, "response", None)
    for of in (error, response):
        try:
            request = getattr(of, "request", None) or getattr(of, "request_info", None)
        except RuntimeError:  # httpx: "The request instance has not been set"
            continue
        if isinstance(method := getattr(request, "method", None), str):
            return method.upper() in _READS
    return False


def _was_sent_again(error: BaseException) -> bool:
    """The library has sent the request more than once: its last answer says nothing of the first."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        return bool(response.get("ResponseMetadata", {}).get("RetryAttempts"))
    history = getattr(getattr(getattr(response, "raw", None), "retries", None), "history", ())  # requests over urllib3
    return any(getattr(sent, "redirect_location", None) is None for sent in history)


def came_after_a_loss(error: BaseException) -> bool:
    """
    Whether the request was sent once more while the loss of an earlier one's answer was handled (``except ConnectionError:``, and
    the submit again): its last answer says nothing of the first.
    """
    context, seen = error.__context__, {id(error)}
    while context is not None and id(context) not in seen:
        seen.add(id(context))
        status = status_of(context)
        is_request = status is not None or {library for library, _ in _named(context)} & _CLIENT_LIBRARIES
        if is_request and not _is_of_a_read(context) and not _proves(context, frozenset(), looks_back=False):
            return True
        context = context.__context__
    return False


def _gave_up_after_several(error: BaseException) -> bool:
    """A library has repeated the request, and what became of the earlier ones is not known."""
    if any(_times_sent(frame) > 1 for frame in _frames(error)):
        return True
    names = {name for _, name in _named(error)}
    if "RetryError" in names:
        return getattr(getattr(error, "last_attempt", None), "attempt_number", None) != 1
    if "MaxRetryError" not in names:
        return False
    frame = next((f for f in _frames(error) if f.f_code.co_name == "increment"), None)
    history = frame.f_locals.get("history", ()) if frame is not None else ()  # urllib3 keeps it nowhere else
    return any(sent.error is None or not proves_nothing_made(sent.error) for sent in history[:-1])


_UNANSWERED = "resumable_unanswered"


@functools.cache
def watch_botocore() -> None:
    """Have botocore's sessions, from now on, note which requests may have got there: an error tells of the last."""
    botocore: Any = import_module("botocore")
    botocore.register_initializer(lambda session: session.register("needs-retry", _note_unanswered))


def _note_unanswered(request_dict: Any = None, response: Any = None, caught_exception: Any = None, **_: Any) -> None:
    if isinstance(request_dict, dict):
        may_be_there = response is not None or not (caught_exception is None or proves_nothing_made(caught_exception))
        request_dict.setdefault("context", {}).setdefault(_UNANSWERED, []).append(may_be_there)


def _sent_by_botocore(found: Mapping[str, Any]) -> Any:
    """Its count; without the requests that are known not to have got anywhere."""
    attempts, request = found.get("attempts"), found.get("request_dict")
    if attempts is None or not isinstance(request, dict):
        return 0
    noted = request.get("context", {}).get(_UNANSWERED)
    return attempts if noted is None else 1 + sum(noted[: attempts - 1])


_COUNTS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "tenacity": lambda found: getattr(found.get("retry_state"), "attempt_number", 0),
    "botocore": _sent_by_botocore,  # a no of the service tells by itself: `_was_sent_again`
    "aiobotocore": _sent_by_botocore,
    "backoff": lambda found: found.get("tries"),
    "retrying": lambda found: found.get("attempt_number"),
    "google": lambda found: 1 + len(found.get("error_list") or ()),  # google.api_core.retry
}
"""How often a library that repeats calls has made the one that failed, by the variables of its frame: nothing else says so."""


def _times_sent(frame: FrameType) -> int:
    """How often the call that failed was made, if ``frame`` is of a library that repeats calls."""
    read = _COUNTS.get(str(frame.f_globals.get("__name__")).partition(".")[0])
    count = read(frame.f_locals) if read is not None else 0
    return count if isinstance(count, int) else 0


def _grpc_code(error: BaseException) -> str | None:
    if not callable(getattr(type(error), "code", None)):  # a property of aiohttp's warns when it is asked for
        return None
    try:
        name = getattr(error.code(), "name", None)  # type: ignore[attr-defined]
    except Exception:
        return None
    return name if isinstance(name, str) else None


def _details(error: Any) -> str:
    try:
        return str(error.details())
    except Exception:
        return str(error)


def _frames(error: BaseException) -> Iterator[FrameType]:
    """The frames that the exception came through."""
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _causes(error: BaseException, *, all_contexts: bool = False) -> Iterator[BaseException]:
    """The exceptions that this one was made of."""
    carried = (error.__cause__, *(getattr(error, name, None) for name in ("reason", "os_error", "original_error")), *error.args)
    found = [one for one in carried if isinstance(one, BaseException) and one is not error]
    yield from found
    context = error.__context__
    if not found and context is not None and not error.__suppress_context__ and (all_contexts or _repeats(error, context)):
        yield context


def _repeats(error: BaseException, context: BaseException) -> bool:
    """Whether an exception that was raised while another was handled is about that one: it says its words or its status again."""
    text, status = str(error), status_of(context)
    return bool(str(context) and str(context) in text) or (status is not None and re.search(rf"\b{status}\b", text) is not None)
