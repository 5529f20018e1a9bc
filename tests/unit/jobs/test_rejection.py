"""Which error of a submit proves that no job was made, and which leaves a doubt: real libraries, a server that misbehaves."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
import time
import types
import urllib.request
from concurrent import futures
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from http import HTTPStatus

import aiohttp
import boto3
import grpc
import httpx
import pytest
import requests
import requests.adapters
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError, IncompleteReadError, ParamValidationError
from tenacity import AsyncRetrying, Retrying, retry, stop_after_attempt, wait_none

from resumable import NotSubmitted, ResumableMixin, make_resumable
from resumable.errors import chain
from resumable.jobs.limits import tells_of_limit
from resumable.jobs.operator import is_durable_class
from resumable.jobs.rejection import is_only_of_the_wait, proves_nothing_made, refuses_repetition
from tests.peers.swap import ours_of_theirs
from tests.support.names import AirflowException, AirflowFailException, AirflowNotFoundException, BaseOperator
from tests.support.refusals import client_error, http_error
from tests.support.runner import TaskInstance

pytestmark = pytest.mark.usefixtures("no_waiting")

UNUSED = "http://127.0.0.1:1"
UNNAMED = "http://no-such-host.invalid"


class Server:
    """Takes each request whole, then does what ``behaviour`` says: bytes are sent as they are, None hangs up."""

    def __init__(self, behaviour, tls=None):
        self.behaviour, self.taken = behaviour, 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._tls = tls
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client):
        try:
            with client:
                if self._tls:
                    client = self._tls.wrap_socket(client, server_side=True)
                self._read_all(client)
                self.taken += 1
                answers = self.behaviour if isinstance(self.behaviour, list) else [self.behaviour]
                answer = answers[min(self.taken, len(answers)) - 1]
                if answer is not None:
                    client.sendall(answer)
                client.close()
        except (OSError, ValueError):
            pass

    @staticmethod
    def _read_all(client):
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65536) or b"\r\n\r\n"
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while lengths and len(body) < int(lengths[0].split(b":")[1]):
            body += client.recv(65536)

    def close(self):
        """A connection from now on is refused: a close alone would leave the one that ``accept`` waits for."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def http_answer(status, body=b"{}", more=b""):
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n".encode()
    return head + f"Content-Length: {len(body)}\r\n".encode() + more + b"\r\n" + body


@pytest.fixture
def serve():
    servers = []

    def start(behaviour, tls=None):
        servers.append(Server(behaviour, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def with_requests(url):
    answer = requests.post(f"{url}/jobs", json={}, timeout=5)
    answer.raise_for_status()
    return answer.json()["job_id"]


def with_httpx(url):
    answer = httpx.post(f"{url}/jobs", json={}, timeout=5)
    answer.raise_for_status()
    return answer.json()["job_id"]


def with_aiohttp(url):
    async def post():
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.post(f"{url}/jobs", json={}) as answer:
            return (await answer.json())["job_id"]

    return asyncio.run(post())


def with_urllib(url):
    with urllib.request.urlopen(urllib.request.Request(f"{url}/jobs", data=b"{}"), timeout=5) as answer:
        return json.load(answer)["job_id"]


class ApiException(Exception):
    """What ``kubernetes.client.ApiException`` documents: status, reason, body, headers."""

    def __init__(self, http_resp):
        super().__init__(f"({http_resp.status})\nReason: {http_resp.reason}\n")
        self.status, self.reason, self.body, self.headers = http_resp.status, http_resp.reason, http_resp.data, http_resp.headers


def as_the_kubernetes_client(url):
    """Over urllib3, as the real one; `ApiException` is made of the answer."""
    answer = urllib3.PoolManager(retries=False, timeout=5).request("POST", f"{url}/jobs", body=b"{}")
    if not 200 <= answer.status <= 299:
        raise ApiException(answer)
    return json.loads(answer.data)["job_id"]


class GoogleAPICallError(Exception):
    """What ``google.api_core.exceptions.GoogleAPICallError`` documents."""

    code: int | None = None
    grpc_status_code = None

    def __init__(self, message, errors=(), details=(), response=None):
        super().__init__(message)
        self.message, self.errors, self.details, self.response = message, list(errors), list(details), response


def as_googles_client(url):
    """Over requests, as `google-cloud-*` do with REST: the error's class has the status as its ``code``."""
    answer = requests.post(f"{url}/jobs", json={}, timeout=5)
    if not answer.ok:
        error = type("Error", (GoogleAPICallError,), {"code": HTTPStatus(answer.status_code)})
        raise error(answer.reason, response=answer)
    return answer.json()["job_id"]


def with_boto3(url):
    config = Config(retries={"total_max_attempts": 1}, read_timeout=5)
    client = boto3.client(
        "glue", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="y", endpoint_url=url, config=config
    )
    return client.start_job_run(JobName="x")["JobRunId"]


def with_httpx2(url):
    """What Airflow 3.4 itself uses in the place of httpx."""
    answer = pytest.importorskip("httpx2").post(f"{url}/jobs", json={}, timeout=5)
    answer.raise_for_status()
    return answer.json()["job_id"]


CLIENTS = [with_requests, with_httpx, with_httpx2, with_aiohttp, with_urllib, as_the_kubernetes_client, as_googles_client]
CLIENTS += [with_boto3]

DOUBTS = {
    "hangs up": None,
    "answers 500": http_answer(500),
    "answers 502": http_answer(502, b"<html>"),
    "answers 503": http_answer(503),
    "answers 504": http_answer(504),
    "answers 408": http_answer(408),
    "answers 409": http_answer(409),
    "answers 429": http_answer(429),
    "cuts its answer short": http_answer(200, b'{"job_id": 7')[:-4] + b"",
    "answers what is no HTTP": b"\x15\x03\x01\x00\x02\x02\x46 nonsense\r\n\r\n",
    "answers without an id": http_answer(200, b"{}"),
    "answers with a page of a proxy": http_answer(200, b"<html>welcome</html>"),
}

# With a code, as every service of AWS answers: to botocore an answer without one is none of the service's.
SAYS_NO = b'{"__type": "ValidationException", "message": "no"}'
PROOFS = {f"answers {status}": http_answer(status, SAYS_NO) for status in (400, 401, 403, 404, 422)}


def error_of(call):
    try:
        call()
    except Exception as e:
        return e
    raise AssertionError("no error")


def operator(submit):
    class Train(ResumableMixin, BaseOperator):
        def execute(self, context):
            return self.execute_resumable(context)

        def submit_job(self, context):
            return submit()

        def get_job_status(self, external_id, context):
            return "DONE"

        def is_job_active(self, status):
            return status == "RUNNING"

        def is_job_succeeded(self, status):
            return status == "DONE"

        def poll_until_complete(self, external_id, context):
            pass

        def get_job_result(self, external_id, context):
            return external_id

    return Train


def one_submit(submit):
    """Return the record's state after a submit, and what the next try does."""
    instance = TaskInstance(lambda: operator(submit)(task_id="task"))
    with pytest.raises(Exception):
        instance.attempt()
    return instance


@pytest.mark.parametrize("behaviour", DOUBTS.values(), ids=DOUBTS.keys())
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_whatever_may_have_made_a_job_is_never_submitted_again_without_token_and_lookup(serve, client, behaviour):
    server = serve(behaviour)
    instance = one_submit(lambda: client(server.url))
    assert instance.record["state"] == "submitting"
    for _ in range(2):
        with pytest.raises(AirflowFailException, match=r"no way to tell.*Look in the service.*clear the task"):
            instance.attempt()
    assert server.taken == 1
    server.behaviour = http_answer(200, b'{"job_id": 7, "JobRunId": "7"}')
    instance.clear()
    assert int(instance.attempt()) == 7


@pytest.mark.parametrize("behaviour", PROOFS.values(), ids=PROOFS.keys())
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_submit_that_the_service_refused_is_made_again_by_the_next_try_whatever_the_client(serve, client, behaviour):
    server = serve(behaviour)
    instance = one_submit(lambda: client(server.url))
    assert instance.record["state"] == "rejected"
    server.behaviour = http_answer(200, b'{"job_id": 7, "JobRunId": "7"}')
    assert int(instance.attempt()) == 7


@pytest.mark.parametrize("url", [UNUSED, UNNAMED], ids=["refused", "no such name"])
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_where_nobody_listens_nothing_was_submitted(client, url):
    assert proves_nothing_made(error_of(lambda: client(url)))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody trusts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_certificate_that_is_not_trusted_ends_it_before_anything_is_sent(serve, client, certificate):
    server = serve(http_answer(200), certificate)
    assert proves_nothing_made(error_of(lambda: client(server.url)))
    assert server.taken == 0


def by_a_call(send, attempts):
    return Retrying(stop=stop_after_attempt(attempts), wait=wait_none(), reraise=True)(send)


def by_a_decorator(send, attempts):
    return retry(stop=stop_after_attempt(attempts), wait=wait_none(), reraise=True)(send)()


def by_a_loop(send, attempts):
    for attempt in Retrying(stop=stop_after_attempt(attempts), wait=wait_none(), reraise=True):
        with attempt:
            return send()


def by_a_coroutine(send, attempts):
    async def submit():
        return send()

    async def repeat():
        return await AsyncRetrying(stop=stop_after_attempt(attempts), wait=wait_none(), reraise=True)(submit)

    return asyncio.run(repeat())


@pytest.mark.parametrize("repeat", [by_a_call, by_a_decorator, by_a_loop, by_a_coroutine], ids=lambda repeat: repeat.__name__)
@pytest.mark.parametrize("client", [with_requests, with_httpx, with_urllib, with_boto3], ids=lambda client: client.__name__)
def test_a_refused_connection_says_nothing_of_what_tenacity_had_sent_before(serve, client, repeat):
    server = serve(None)

    def send():
        try:
            return client(UNUSED if server.taken else server.url)
        finally:
            server.close()

    error = error_of(lambda: repeat(send, 2))
    assert server.taken == 1
    assert "refused" in str(error) or "connect" in str(error)
    assert not proves_nothing_made(error)
    assert proves_nothing_made(error_of(lambda: repeat(lambda: client(UNUSED), 1)))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_server_that_speaks_no_tls_was_sent_nothing(client):
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer():
            taken, _ = plain.accept()
            with taken:
                taken.recv(65536)
                taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert proves_nothing_made(error_of(lambda: client(f"https://127.0.0.1:{plain.getsockname()[1]}")))


def unverified(url):
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(url.removeprefix("https://"), timeout=5, context=context)
    connection.request("POST", "/jobs", b"{}")
    return connection.getresponse().read()


@pytest.mark.parametrize(
    "client",
    [
        unverified,
        lambda url: requests.post(url, json={}, timeout=5, verify=False),
        lambda url: httpx.post(url, json={}, timeout=5, verify=False),
    ],
    ids=["http.client", "requests", "httpx"],
)
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_tls_that_breaks_after_the_request_was_sent_is_a_doubt(serve, client, certificate):
    server = serve(None, certificate)
    assert not proves_nothing_made(error_of(lambda: client(server.url)))
    assert server.taken == 1


# -- requests that were sent several times, and other requests than the submit ------------------------------------------------


def test_a_refusal_of_a_request_that_the_library_had_sent_before_is_a_doubt(serve):
    """The first one's answer was lost: the service may say no to the second because of the job that the first has made."""
    server = serve([http_answer(503), http_answer(400)])
    session = requests.Session()
    again = urllib3.Retry(total=3, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=again))

    def submit():
        session.post(f"{server.url}/jobs", json={}, timeout=5).raise_for_status()

    assert one_submit(submit).record["state"] == "submitting"
    assert server.taken == 2


def test_a_connection_that_is_refused_after_the_request_was_sent_once_is_a_doubt(serve):
    server = serve(None)
    real = server._read_all
    server._read_all = lambda client: (real(client), server.close())
    again = urllib3.Retry(total=3, allowed_methods=None, backoff_factor=0)

    def submit():
        return urllib3.PoolManager(retries=again, timeout=5).request("POST", f"{server.url}/jobs", body=b"{}")

    error = error_of(submit)
    assert "refused" in str(error)
    assert not proves_nothing_made(error)


def test_a_connection_that_was_refused_every_time_proves_it():
    again = urllib3.Retry(total=2, allowed_methods=None, backoff_factor=0)
    assert proves_nothing_made(error_of(lambda: urllib3.PoolManager(retries=again).request("POST", UNUSED, body=b"{}")))


def test_boto3_that_was_refused_after_repetitions_is_a_doubt(serve):
    server = serve([http_answer(500), http_answer(400, b'{"__type": "IdempotentParameterMismatchException"}')])
    client = boto3.client(
        "glue", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="y", endpoint_url=server.url
    )
    error = error_of(lambda: client.start_job_run(JobName="x"))
    assert isinstance(error, ClientError)
    assert server.taken == 2
    assert not proves_nothing_made(error)


def _lost_then_refused(serve):
    """A server that takes one request, does not answer it, and is gone."""
    server = serve(None)
    real = server._read_all
    server._read_all = lambda client: (real(client), server.close())
    return server


def _with_boto3_that_repeats(url):
    session = boto3.Session(aws_access_key_id="x", aws_secret_access_key="y", region_name="eu-west-1")
    config = Config(retries={"total_max_attempts": 3}, read_timeout=5)
    return session.client("glue", endpoint_url=url, config=config).start_job_run(JobName="x")["JobRunId"]


def test_boto3_that_reaches_nobody_after_its_first_request_got_no_answer_is_a_doubt(serve):
    server = _lost_then_refused(serve)
    instance = one_submit(lambda: _with_boto3_that_repeats(server.url))
    assert (server.taken, instance.record["state"]) == (1, "submitting")


def test_boto3_that_reached_nobody_however_often_it_tried_has_submitted_nothing():
    assert one_submit(lambda: _with_boto3_that_repeats(UNUSED)).record["state"] == "rejected"


class _OfBackoff(types.ModuleType):
    """Repeats calls as backoff, retrying and google.api_core do: the count is in a variable of theirs."""

    def __init__(self, name, counting):
        super().__init__(name)
        exec(
            "def repeat(call):\n"
            "    tries, error_list, attempt_number = 0, [], 0\n"
            "    while True:\n"
            f"        {counting}\n"
            "        try:\n"
            "            return call()\n"
            "        except ConnectionError as e:\n"
            "            error_list.append(e)\n",
            vars(self),
        )


@pytest.mark.parametrize(
    ("library", "counting"),
    [("backoff._sync", "tries += 1"), ("retrying", "attempt_number += 1"), ("google.api_core.retry.retry_unary", "pass")],
)
def test_a_refusal_after_a_lost_answer_is_a_doubt_whichever_library_has_repeated_the_request(serve, library, counting):
    server = serve([None, http_answer(400)])

    def post():
        try:
            return with_requests(server.url)
        except requests.ConnectionError:
            raise ConnectionError from None

    repeat = _OfBackoff(library, counting).repeat
    assert one_submit(lambda: repeat(post)).record["state"] == "submitting"
    assert server.taken == 2
    server.behaviour = http_answer(400)
    assert one_submit(lambda: repeat(post)).record["state"] == "rejected"


@pytest.mark.parametrize("client", [with_requests, with_httpx, with_boto3])
def test_a_refusal_of_a_request_that_was_sent_again_when_the_first_was_lost_is_a_doubt(serve, client):
    server = serve([None, http_answer(400)])

    def submit():
        try:
            return client(server.url)
        except Exception:
            return client(server.url)

    assert one_submit(submit).record["state"] == "submitting"
    assert server.taken == 2


@pytest.mark.parametrize("before", [http_answer(404), http_answer(401)])
def test_a_refusal_after_another_refusal_is_one(serve, before):
    """A login that has expired, and the submit again; or a look whether the job is there, which it is not."""
    server = serve([before, http_answer(400)])

    def submit():
        try:
            return with_requests(server.url)
        except requests.HTTPError:
            return with_requests(server.url)

    assert one_submit(submit).record["state"] == "rejected"


def test_tenacity_that_gave_up_after_several_tries_is_a_doubt_and_after_one_is_what_it_was():
    def refused():
        raise ConnectionRefusedError

    for attempts, proven in ((1, True), (3, False)):
        assert proves_nothing_made(error_of(lambda n=attempts: Retrying(stop=stop_after_attempt(n))(refused))) is proven


@pytest.mark.parametrize("method", ["get", "head"])
def test_a_question_that_is_refused_after_the_submit_says_nothing_of_the_job(serve, method):
    server = serve(http_answer(404))
    assert not proves_nothing_made(error_of(lambda: requests.request(method, server.url, timeout=5).raise_for_status()))
    assert not proves_nothing_made(error_of(lambda: httpx.request(method, server.url).raise_for_status()))


@pytest.mark.parametrize("operation", ["GetJobRun", "DescribeStatement", "ListSteps", "BatchGetBuilds"])
def test_a_question_of_boto3_that_is_refused_says_nothing_of_the_job(operation):
    assert not proves_nothing_made(client_error(400, operation))
    assert proves_nothing_made(client_error(400, "StartJobRun"))


# -- what the exceptions are wrapped in -----------------------------------------------------------------------------------


def raised(make):
    return error_of(make)


def test_an_exception_that_was_raised_from_a_refusal_is_one():
    def wrapped():
        try:
            raise http_error(400)
        except requests.HTTPError as e:
            raise RuntimeError("the service says no") from e

    assert proves_nothing_made(error_of(wrapped))


@pytest.mark.parametrize("error", [http_error(503), ConnectionResetError(), TimeoutError(), EOFError()], ids=repr)
def test_an_exception_that_was_raised_from_a_lost_answer_is_one(error):
    def wrapped():
        try:
            raise error
        except Exception as e:
            raise RuntimeError("the service does not answer") from e

    assert not proves_nothing_made(error_of(wrapped))


def test_airflows_http_hook_repeats_the_status_and_is_believed(serve, monkeypatch):
    from airflow.providers.http.hooks.http import HttpHook

    for status, proven in ((400, True), (403, True), (409, False), (503, False)):
        server = serve(http_answer(status))
        monkeypatch.setenv("AIRFLOW_CONN_JOBS", server.url)
        assert proves_nothing_made(error_of(lambda: HttpHook(http_conn_id="jobs").run("/jobs"))) is proven


@pytest.mark.parametrize("after", [KeyError("job_id"), AirflowException("no id in the answer"), ConnectionResetError()], ids=repr)
def test_an_error_while_a_refusal_is_handled_is_not_that_refusal(after):
    """`get_or_create`: the lookup says 404, then the submit's answer cannot be read."""

    def get_or_create():
        try:
            raise http_error(404, "PUT")
        except requests.HTTPError:
            raise after  # noqa: B904

    assert not proves_nothing_made(error_of(get_or_create))


def test_an_exception_that_leads_back_to_itself_ends_somewhere():
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert not proves_nothing_made(one)
    assert not is_only_of_the_wait(one)


def test_a_group_proves_it_only_if_each_of_it_does():
    group = types.SimpleNamespace  # ExceptionGroup came with Python 3.11
    group = type("ExceptionGroup", (Exception,), {})
    both, one = group(), group()
    both.exceptions = (ConnectionRefusedError(), socket.gaierror())
    one.exceptions = (ConnectionRefusedError(), ConnectionResetError())
    assert proves_nothing_made(both)
    assert not proves_nothing_made(one)


# -- each library's own ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grpc_server():
    codes = {code.name: code for code in grpc.StatusCode}

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            def answer(request, context):
                context.abort(codes[details.method.rpartition("/")[2]], "as asked")

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


PROVEN_BY_GRPC = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
}


@pytest.mark.parametrize("code", [code.name for code in grpc.StatusCode if code.name != "OK"])
def test_grpc_is_told_by_its_status(grpc_server, code):
    with grpc.insecure_channel(grpc_server) as channel:
        error = error_of(lambda: channel.unary_unary(f"/jobs/{code}")(b"", timeout=5))
    assert proves_nothing_made(error) is (code in PROVEN_BY_GRPC)
    assert is_only_of_the_wait(error)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:1"])
def test_grpc_that_reached_nobody_has_sent_nothing(address):
    with grpc.insecure_channel(address) as channel:
        error = error_of(lambda: channel.unary_unary("/jobs/start")(b"", timeout=20))
    assert proves_nothing_made(error)


def test_grpc_whose_connection_broke_is_a_doubt():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            while True:
                try:
                    taken, _ = server.accept()
                except OSError:
                    return
                taken.sendall(bytes.fromhex("000000040000000000"))  # HTTP/2's greeting: the connection is there
                taken.recv(65536)
                time.sleep(0.05)
                taken.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with grpc.insecure_channel(f"127.0.0.1:{server.getsockname()[1]}") as channel:
            error = error_of(lambda: channel.unary_unary("/jobs/start")(b"", timeout=20))
    assert not proves_nothing_made(error)


@pytest.mark.parametrize("name", ["BadRequest", "Forbidden", "NotFound"])
def test_a_google_error_without_a_response_is_told_by_its_code(name):
    """Over gRPC there is no HTTP response; the class has the status all the same."""
    code = {"BadRequest": 400, "Forbidden": 403, "NotFound": 404}[name]
    assert proves_nothing_made(type(name, (GoogleAPICallError,), {"code": code})("no"))


@pytest.mark.parametrize(("name", "code"), [("ServiceUnavailable", 503), ("Conflict", 409), ("Aborted", 409), ("Unknown", 500)])
def test_a_google_error_that_proves_nothing_is_a_doubt(name, code):
    assert not proves_nothing_made(type(name, (GoogleAPICallError,), {"code": code})("perhaps"))


def test_a_databases_error_number_is_no_status_of_http():
    """ClickHouse numbers its errors, 425 is SYSTEM_ERROR."""
    error = type("ServerException", (Exception,), {"code": 425})("system error")
    assert not proves_nothing_made(error)


@pytest.mark.parametrize("status", [400, 404])
def test_the_status_that_airflows_own_exceptions_have_is_not_the_services(status):
    error = type("Own", (AirflowException,), {"status_code": status})("the job's answer had no id")
    assert not proves_nothing_made(error)


@pytest.mark.parametrize(
    "error",
    [NotSubmitted("over quota"), AirflowNotFoundException("The conn_id `jobs` isn't defined"), ParamValidationError(report="x")],
    ids=lambda error: type(error).__name__,
)
def test_what_is_raised_before_anything_is_asked_for_leaves_no_doubt(error):
    submits = []

    def submit():
        submits.append(1)
        if len(submits) == 1:
            raise error
        return 7

    instance = one_submit(submit)
    assert instance.record["state"] == "rejected"
    assert instance.attempt() == 7


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        KeyError("job_id"),
        AirflowException("400"),
        RuntimeError(),
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
        OSError("broken pipe"),
        AirflowFailException("no"),
    ],
    ids=repr,
)
def test_any_other_error_leaves_a_doubt(error):
    def submit():
        raise error

    assert one_submit(submit).record["state"] == "submitting"


def test_a_made_class_is_told_by_the_same_knowledge(serve):
    """An operator of Airflow's own mixin, speaking boto3."""
    from airflow.providers.common.compat.sdk import ResumableJobMixin

    server = serve(http_answer(503))

    class Train(ResumableJobMixin, BaseOperator):
        external_id_key = "job"

        def execute(self, context):
            return self.execute_resumable(context)

        def submit_job(self, context):
            return with_boto3(server.url)

        get_job_status = lambda self, external_id, context: "DONE"
        is_job_active = lambda self, status: False
        is_job_succeeded = lambda self, status: True
        poll_until_complete = lambda self, external_id, context: None
        get_job_result = lambda self, external_id, context: external_id

    instance = TaskInstance(lambda: make_resumable(Train)(task_id="task"))
    for wanted in (ClientError, AirflowFailException):
        with pytest.raises(wanted):
            instance.attempt()
    assert server.taken == 1


# -- the wait -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [*DOUBTS.values(), *PROOFS.values()], ids=[*DOUBTS, *PROOFS])
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_look_that_goes_wrong_costs_no_try_whatever_the_client(serve, client, behaviour):
    server, polls = serve(behaviour), []

    class Train(operator(lambda: 7)):
        def get_job_status(self, external_id, context):
            return "RUNNING" if len(polls) < 2 else "DONE"

        def poll_until_complete(self, external_id, context):
            polls.append(1)
            if len(polls) == 1:
                client(server.url)

    assert TaskInstance(lambda: Train(task_id="task"), retries=0).attempt() == 7
    assert len(polls) == 2


@pytest.mark.parametrize("error", [RuntimeError("exit code 1"), AirflowException("failed"), ValueError("too few rows")], ids=repr)
def test_what_the_author_raises_for_a_bad_end_is_not_overruled(error):
    class Train(operator(lambda: 7)):
        def poll_until_complete(self, external_id, context):
            raise error

    with pytest.raises(type(error)):
        TaskInstance(lambda: Train(task_id="task"), retries=0).attempt()


def test_a_verdict_that_was_reached_while_a_missing_key_was_handled_is_not_overruled():
    class Train(operator(lambda: 7)):
        def poll_until_complete(self, external_id, context):
            try:
                {}["rows"]
            except KeyError:
                raise AirflowException("the job has written no rows")  # noqa: B904

    with pytest.raises(AirflowException, match="no rows"):
        TaskInstance(lambda: Train(task_id="task"), retries=0).attempt()


def _unwrapped() -> Exception:
    try:
        try:
            try:
                raise ValueError("the real one")
            except ValueError as e:
                raise RuntimeError("a wrapper") from e
        except RuntimeError as e:
            raise e.__cause__  # noqa: B904
    except ValueError as e:
        return e


@pytest.mark.timeout(60)
def test_errors_that_are_causes_of_each_other_are_read_to_an_end():
    error = _unwrapped()
    assert error.__context__.__cause__ is error
    assert [*chain(error)] == [error, error.__context__]
    for read in (proves_nothing_made, refuses_repetition, is_only_of_the_wait, tells_of_limit):
        assert not read(error)
    for operator in ours_of_theirs().values():
        if is_durable_class(operator):
            assert not operator._resumable.service(None).is_rejection(error)


@pytest.mark.parametrize("code", ["InternalServerError", "InternalServerException", "InternalFailure", "ServiceUnavailable"])
def test_a_services_own_failure_proves_nothing_whatever_status_it_comes_with(code):
    """EMR answers with 400 and InternalServerError."""
    from botocore.exceptions import ClientError

    answer = {"Error": {"Code": code, "Message": "boom"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    assert not proves_nothing_made(ClientError(answer, "AddJobFlowSteps"))
    assert not refuses_repetition(ClientError(answer, "AddJobFlowSteps"))


def test_no_operator_takes_a_services_own_failure_with_status_400_for_a_no():
    from botocore.exceptions import ClientError

    answer = {"Error": {"Code": "InternalServerError", "Message": "boom"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    for ours in filter(is_durable_class, ours_of_theirs().values()):
        service = ours._resumable.service(None)
        operation = getattr(service, "operations", ("Submit",))[0]
        assert not service.is_rejection(ClientError(answer, operation)), ours


@pytest.mark.parametrize("protocol", ["json", "rest-json", "query", "rest-xml", "ec2"])
@pytest.mark.parametrize("status", [400, 403, 404])
@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b'{"error": "blocked"}', b'{"errors": [{"detail": "no"}]}', b"<html>Blocked</html>", b"<!DOCTYPE html>"],
    ids=repr,
)
def test_an_answer_of_aws_without_a_word_of_the_service_proves_nothing(protocol, status, body):
    """As botocore reads what a proxy made of the service's answer."""
    from botocore.exceptions import ClientError
    from botocore.parsers import ResponseParserError, create_parser

    try:
        answer = create_parser(protocol).parse({"status_code": status, "headers": {}, "body": body}, None)
        error: Exception = ClientError(answer, "AddJobFlowSteps")
    except ResponseParserError as e:
        error = e
    assert not proves_nothing_made(error)
    assert not refuses_repetition(error)
