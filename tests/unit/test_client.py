# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client against servers that misbehave in each way that its table names."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import client as client_module
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import errors, transport
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    Connection,
    PveAmbiguous,
    PveAuthFailed,
    PveBadRequest,
    PveClient,
    PveConflict,
    PveError,
    PveForbidden,
    PveLocked,
    PveNoQuorum,
    PveNotFound,
    PveTlsError,
    PveUnreachable,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Outcome, from_answer
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import InsecureRequestWarning

from tests.unit.conftest import client_for, token_client_for
from tests.unit.scripted_https import DROP, TICKET, Answer, Request, ScriptedServer, in_turn

Serve = Callable[..., ScriptedServer]
LOCKED = "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout"
DEAD = "https://127.0.0.1:1"


def always(data: Any = "done") -> Callable[[Request], Answer]:
    return lambda request: Answer(TICKET if request.path == "/access/ticket" else data)


class Proxy:
    """An HTTP proxy that knows CONNECT, and keeps what it was told in plain text."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed by the test
            while True:
                threading.Thread(target=self._serve, args=self._socket.accept()[:1], daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += near.recv(4096)
        self.heads.append(head)
        host, port = head.split()[1].decode().rsplit(":", 1)
        far = socket.create_connection((host, int(port)))
        near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=self._pump, args=(far, near), daemon=True).start()
        self._pump(near, far)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    running = Proxy()
    yield running
    running.close()


# ---------------------------------------------------------------- who we are


def test_password_logs_in_once_and_only_when_needed(serve: Serve) -> None:
    server = serve(always())
    client = client_for(server)
    assert (server.requests, client.calls) == ([], 0)
    client.get("/version")
    client.put("/nodes/pve1/qemu/100/config", {"memory": 512})
    assert server.calls == ["POST /access/ticket", "GET /version", "PUT /nodes/pve1/qemu/100/config"]
    assert client.calls == 3
    login, read, write = server.requests
    assert login.form == {"username": ["root@pam"], "password": ["s3cret-pass"]}
    assert "Cookie" not in login.headers
    assert read.headers["Cookie"] == "PVEAuthCookie=PVE:root@pam:TICKET"
    assert "CSRFPreventionToken" not in read.headers
    assert write.headers["CSRFPreventionToken"] == "CSRF-TOKEN"


def test_token_needs_no_login_and_a_netrc_does_not_replace_it(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = serve(always())
    token_client_for(server).post("/pools", {"poolid": "blue"})
    assert server.calls == ["POST /pools"]
    assert server.requests[0].headers["Authorization"] == "PVEAPIToken=root@pam!fleet=t0ken-s3cret"
    assert "CSRFPreventionToken" not in server.requests[0].headers


def test_old_ticket_is_renewed_before_it_is_refused(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(always())
    client = client_for(server)
    client.get("/version")
    monkeypatch.setattr(client_module, "TICKET_SECONDS", -1.0)
    client.get("/version")
    assert server.calls == ["POST /access/ticket", "GET /version"] * 2


def test_dead_ticket_is_one_new_login(serve: Serve) -> None:
    server = serve(in_turn(Answer("first"), Answer(status=401, body=b""), Answer("third")))
    client = client_for(server)
    assert client.get("/version") == "first"
    assert client.post("/pools") == "third"
    assert server.calls.count("POST /access/ticket") == 2


def test_refused_again_after_a_new_login_is_an_error(serve: Serve) -> None:
    server = serve(in_turn(Answer(status=401, body=b""), Answer(status=401, body=b"")))
    with pytest.raises(PveAuthFailed, match="credentials were not accepted"):
        client_for(server).get("/version")
    assert server.calls.count("POST /access/ticket") == 2


def test_refused_token_is_not_tried_again(serve: Serve) -> None:
    server = serve(in_turn(Answer(status=401, reason="no such token 'fleet' for user 'root@pam'", body=b"")))
    with pytest.raises(PveAuthFailed, match="no such token"):
        token_client_for(server).get("/version")


def test_wrong_password_names_the_user(serve: Serve) -> None:
    server = serve(lambda request: Answer(status=401, reason="authentication failure", body=b'{"data":null}'))
    with pytest.raises(PveAuthFailed, match="login of root@pam: authentication failure"):
        client_for(server).get("/version")
    assert len(server.requests) == 1


def test_second_factor_is_a_clear_error(serve: Serve) -> None:
    server = serve(lambda request: Answer({"ticket": "PVE:!tfa!x", "NeedTFA": 1, "CSRFPreventionToken": "x"}))
    with pytest.raises(PveAuthFailed, match=r"second factor.*API token"):
        client_for(server).get("/version")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404, body=b"<html>"),
        Answer(None),
        Answer({"token": "x"}),
        Answer(["x"]),
        Answer({**TICKET, "ticket": 7}),
        Answer({**TICKET, "ticket": "\u20ac"}),
    ],
)
def test_login_at_something_else_is_no_traceback(serve: Serve, answer: Answer) -> None:
    server = serve(lambda request: answer)
    with pytest.raises(PveUnreachable, match=r"has no login|as Proxmox VE never does"):
        client_for(server).get("/version")


@pytest.mark.parametrize("status", [200, 500])
def test_deeply_nested_answer_is_no_traceback(serve: Serve, status: int) -> None:
    server = serve(lambda request: Answer(status=status, body=b"[" * 20_000))
    with pytest.raises(PveError):
        token_client_for(server, retry_seconds=0).get("/version")


def test_half_a_surrogate_pair_becomes_a_question_mark(serve: Serve) -> None:
    server = serve(lambda request: Answer(["\ud800", "\U0001f600", {"\udfff": "\\ud800"}]))
    assert token_client_for(server).get("/version") == ["?", "\U0001f600", {"?": "\\ud800"}]


def test_many_threads_log_in_once(serve: Serve) -> None:
    server = serve(always())
    client = client_for(server)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: client.get("/version"), range(24)))
    assert server.calls.count("POST /access/ticket") == 1
    assert client.calls == 25


# ---------------------------------------------------------------- whom we trust


def test_wrong_pin_sends_nothing_at_all(serve: Serve) -> None:
    server = serve(always())
    with pytest.raises(PveTlsError) as caught:
        client_for(server, tls_fingerprint="AA:" * 31 + "AA").get("/version")
    assert transport.colons(server.fingerprint) in str(caught.value)
    assert server.requests == []
    assert server.connections == 1  # a certificate does not get better by asking again


def test_pin_replaces_ca_and_host_name(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(always(), names=["elsewhere.example"])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    client = client_for(server, tls_fingerprint=transport.colons(server.fingerprint))
    assert client.get("/version") == "done"


def test_ca_file_is_trusted_and_the_environment_does_not_widen_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, other = serve(always()), serve(always())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", server.ca_file)
    assert client_for(server, ca_path=server.ca_file).get("/version") == "done"
    with pytest.raises(PveTlsError, match="not trusted"):
        client_for(server, ca_path=other.ca_file).get("/version")
    assert client_for(server, ca_pem=Path(server.ca_file).read_text()).get("/version") == "done"


def test_system_cas_follow_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server, other = serve(always()), serve(always())
    for name in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, server.ca_file)
    assert client_for(server, validate_certs=True).get("/version") == "done"
    with pytest.raises(PveTlsError):
        client_for(other, validate_certs=True).get("/version")


def test_trusted_certificate_of_another_host_is_refused(serve: Serve) -> None:
    server = serve(always(), names=["elsewhere.example"])
    with pytest.raises(PveTlsError, match="not trusted"):
        client_for(server).get("/version")
    assert server.requests == []


def test_no_verification_only_by_name_and_then_without_warnings(serve: Serve) -> None:
    server = serve(always())
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert client_for(server, validate_certs=False).get("/version") == "done"
    assert [warning for warning in warned if warning.category is InsecureRequestWarning] == []


@pytest.mark.parametrize(
    "changes", [{"ca_path": "/nonexistent/ca.pem"}, {"ca_pem": "no certificate"}, {"ca_pem": "\u00e9"}]
)
def test_unreadable_ca_is_a_clear_error(changes: dict[str, str]) -> None:
    with pytest.raises(PveTlsError, match="Unable to read the CA"):
        PveClient(Connection((DEAD,), "root@pam", password="x", **changes))


# ---------------------------------------------------------------- which way


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("https://198.51.100.7:8006", "", False),  # TEST-NET-2 is no public address either
        ("https://1.1.1.1:8006", "", True),
        ("https://1.1.1.1:8006", "1.1.1.0/24", False),
        ("https://127.0.0.1:8006", "", False),
        ("https://localhost:8006", "", False),
        ("https://10.1.2.3:8006", "", False),
        ("https://[fd00::1]:8006", "", False),
        ("https://nobody-knows.invalid:8006", "", True),
        ("https://nobody-knows.invalid:8006", ".invalid", False),
    ],
)
def test_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, expected: bool
) -> None:
    for name in ("https_proxy", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert transport.proxies_for(url) == ({"https": "http://proxy.example:3128"} if expected else {})


def test_proxy_carries_the_tls_to_the_node_and_sees_no_secret(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    monkeypatch.setattr(transport, "_is_internal", lambda host: False)  # the test's node is on this machine
    server = serve(always(), names=["elsewhere.example"])
    assert client_for(server, tls_fingerprint=server.fingerprint).get("/version") == "done"
    assert proxy.heads
    assert all(head.startswith(b"CONNECT 127.0.0.1:") for head in proxy.heads)
    assert b"s3cret-pass" not in b"".join(proxy.heads)
    with pytest.raises(PveTlsError):
        client_for(server, tls_fingerprint="00" * 32).get("/version")


def test_next_endpoint_takes_over_and_stays(serve: Serve) -> None:
    server = serve(always())
    client = token_client_for(server, endpoints=(DEAD, server.url))
    assert client.post("/pools") == "done"
    assert client._current == 1
    assert client.get("/version") == "done"


def test_endpoint_that_hangs_is_left_for_the_next(serve: Serve) -> None:
    never = threading.Event()
    hanging = serve(lambda request: never.wait(10) and DROP)
    working = serve(always())
    bundle = Path(hanging.ca_file).read_text() + Path(working.ca_file).read_text()
    client = token_client_for(hanging, working, ca_pem=bundle, read_timeout=0.3, retry_seconds=1)
    assert client.get("/version") == "done"
    never.set()


def test_all_endpoints_dead_says_why_for_each() -> None:
    connection = Connection((DEAD, "https://[::1]:1"), "root@pam", password="x", retry_seconds=0)
    with pytest.raises(PveUnreachable, match=r"127.0.0.1:1: connection refused; https://\[::1\]:1: "):
        PveClient(connection).get("/version")


def test_unknown_name_is_not_repeated() -> None:
    connection = Connection(("https://nobody-knows.invalid:8006",), "root@pam", password="x", retry_seconds=60)
    with pytest.raises(PveUnreachable, match="cannot be resolved"):
        PveClient(connection).get("/version")


def test_idle_connection_is_not_trusted_with_a_write(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(always())
    client = token_client_for(server)
    client.get("/version")
    client.get("/version")
    assert [request.connection for request in server.requests] == [1, 1]
    monkeypatch.setattr(transport, "IDLE_SECONDS", 0.0)
    client.post("/pools")
    assert server.requests[-1].connection == 2


# ---------------------------------------------------------------- what may be repeated

PASSING_ANSWERS = [
    Answer(status=500, reason=LOCKED, body=b""),
    Answer(status=500, reason="got no worker upid - start worker failed", body=b""),
    Answer(status=500, reason="cfs-lock 'file-user_cfg' error: got lock request timeout", body=b""),
]
UNKNOWN_ANSWERS = [
    DROP,
    Answer(status=500, body=b""),
    Answer(status=502, body=b""),
    Answer(status=503, body=b""),
    Answer(status=504, body=b""),
    Answer(status=595, reason="No route to host", body=b""),
    Answer(status=596, reason="Connection timed out", body=b""),
    Answer(status=597, body=b""),
    Answer(status=599, reason="Too many redirections", body=b""),
    Answer(body=b"<html>starting</html>"),
    Answer(status=302, headers={"Location": "https://elsewhere.example/"}, body=b""),
]
REFUSED_ANSWERS = [
    (Answer(status=400, reason="Parameter verification failed.", body=b""), PveBadRequest),
    (Answer(status=400, reason="no such task", body=b""), PveNotFound),
    (Answer(status=403, reason="Permission check failed", body=b""), PveForbidden),
    (Answer(status=404, body=b""), PveNotFound),
    (Answer(status=500, reason="Configuration file 'nodes/pve1/qemu-server/1.conf' does not exist"), PveNotFound),
    (Answer(status=500, reason="cluster not ready - no quorum?"), PveNoQuorum),
    (Answer(status=500, reason="cfs-lock 'storage_cfg' error: no quorum!"), PveNoQuorum),
    (Answer(status=500, reason="unable to create VM 100: config file already exists"), PveConflict),
    (Answer(status=500, reason="checksum mismatch (file change by other user?)"), PveConflict),
    (
        Answer(status=500, reason="detected modified configuration - file changed by other user? Try again."),
        PveConflict,
    ),
    (Answer(status=500, reason="VM 100 qmp command 'quit' failed - got timeout"), PveError),
    (Answer(status=500, reason="QEMU guest agent is not running"), PveError),
    (Answer(status=501, reason="Method 'GET /nodes/foo' not implemented"), PveError),
]


@pytest.mark.parametrize("answer", PASSING_ANSWERS + UNKNOWN_ANSWERS)
def test_read_is_repeated(serve: Serve, answer: Answer | None) -> None:
    server = serve(in_turn(answer, Answer("done")))
    assert token_client_for(server).get("/version") == "done"
    assert len(server.requests) == 2


@pytest.mark.parametrize("answer", PASSING_ANSWERS)
def test_write_that_did_nothing_is_repeated_without_asking(serve: Serve, answer: Answer) -> None:
    server = serve(in_turn(answer, Answer("done")))
    assert token_client_for(server).post("/pools") == "done"
    assert len(server.requests) == 2


@pytest.mark.parametrize("answer", UNKNOWN_ANSWERS)
def test_write_with_a_lost_answer_is_sent_once(serve: Serve, answer: Answer | None) -> None:
    server = serve(in_turn(answer))
    with pytest.raises(PveAmbiguous, match="not known whether"):
        token_client_for(server).post("/pools")
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", UNKNOWN_ANSWERS)
def test_write_with_a_lost_answer_that_landed_is_not_repeated(serve: Serve, answer: Answer | None) -> None:
    server = serve(in_turn(answer))
    assert token_client_for(server).put("/pools", landed=lambda: "there") == "there"
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", UNKNOWN_ANSWERS)
def test_write_with_a_lost_answer_that_did_not_land_is_repeated(serve: Serve, answer: Answer | None) -> None:
    server = serve(in_turn(answer, Answer("done")))
    assert token_client_for(server).delete("/pools/blue", landed=lambda: None) == "done"
    assert len(server.requests) == 2


def test_conflict_with_an_earlier_try_of_ours_is_success(serve: Serve) -> None:
    taken = Answer(status=500, reason="unable to create VM 100: config file already exists", body=b"")
    server = serve(in_turn(DROP, taken))
    looks = iter([None, "ours"])
    assert token_client_for(server).post("/nodes/pve1/qemu", landed=lambda: next(looks)) == "ours"


def test_conflict_with_somebody_else_is_a_conflict(serve: Serve) -> None:
    taken = Answer(status=500, reason="unable to create VM 100: config file already exists", body=b"")
    server = serve(in_turn(DROP, taken))
    with pytest.raises(PveConflict):
        token_client_for(server).post("/nodes/pve1/qemu", landed=lambda: None)


def test_look_that_gets_no_answer_leaves_the_write_ambiguous(serve: Serve) -> None:
    server = serve(in_turn(DROP))

    def look() -> None:
        raise PveUnreachable("nobody answers")

    with pytest.raises(PveAmbiguous):
        token_client_for(server).post("/pools", landed=look)


def test_handshake_that_broke_did_nothing(serve: Serve) -> None:
    server = serve(always())
    server.refuse_handshakes = 1
    assert token_client_for(server).post("/pools") == "done"
    assert server.calls == ["POST /pools"]


def test_lost_login_does_not_make_the_write_ambiguous(serve: Serve) -> None:
    answers = iter([DROP, Answer(TICKET), Answer("done")])
    server = serve(lambda request: next(answers))
    assert client_for(server).post("/pools") == "done"
    assert server.calls == ["POST /access/ticket", "POST /access/ticket", "POST /pools"]


@pytest.mark.parametrize(("answer", "error"), REFUSED_ANSWERS)
@pytest.mark.parametrize("method", ["get", "post"])
def test_definite_refusal_is_never_repeated(
    serve: Serve, answer: Answer, error: type[PveError], method: str
) -> None:
    server = serve(in_turn(answer))
    with pytest.raises(PveError) as caught:
        getattr(token_client_for(server), method)("/some/path")
    assert caught.type is error
    assert caught.value.outcome is Outcome.REFUSED
    assert len(server.requests) == 1


def test_budget_ends_the_repetitions(serve: Serve) -> None:
    server = serve(lambda request: Answer(status=500, reason=LOCKED, body=b""))
    with pytest.raises(PveLocked, match="can't lock file"):
        token_client_for(server, retry_seconds=0.5).post("/pools")
    assert 2 <= len(server.requests) <= 6


def test_slow_answer_is_a_timeout(serve: Serve) -> None:
    never = threading.Event()
    server = serve(lambda request: never.wait(10) and DROP)
    with pytest.raises(PveUnreachable, match=r"no answer within 0\.2 s"):
        token_client_for(server, read_timeout=0.2, retry_seconds=0).get("/version")
    never.set()


@given(st.integers(300, 999), st.text(max_size=80))
def test_every_answer_has_a_meaning(status: int, text: str) -> None:
    error = from_answer(status, text, method="POST", path="/x")
    assert isinstance(error, PveError)
    assert str(error).endswith(f"(POST /x: {status})")
    if status in (400, 401, 403, 404):
        assert error.outcome is Outcome.REFUSED
    if status in (502, 503, 504, 595, 596, 597, 599) and not any(
        rule.text and rule.text.search(" ".join(text.split())) for rule in errors.ANSWERS
    ):
        assert error.outcome is Outcome.UNKNOWN


# ---------------------------------------------------------------- what is said and sent


def test_refusal_tells_every_field_in_pve_s_words(serve: Serve) -> None:
    body = (
        b'{"data":null,"message":"Parameter verification failed.\\n",'
        b'"errors":{"memory":"type check (\'integer\') failed - got \'abc\'",'
        b'"cores":"value must have a minimum of 1\\n"}}'
    )
    server = serve(in_turn(Answer(status=400, reason="Parameter verification failed.", body=body)))
    with pytest.raises(PveBadRequest) as caught:
        token_client_for(server).put("/nodes/pve1/qemu/100/config", {"memory": "abc", "cores": 0})
    assert caught.value.errors.keys() == {"memory", "cores"}
    assert str(caught.value) == (
        "Parameter verification failed: memory: type check ('integer') failed - got 'abc';"
        " cores: value must have a minimum of 1 (PUT /nodes/pve1/qemu/100/config: 400)"
    )


def test_values_are_sent_as_pve_wants_them(serve: Serve) -> None:
    server = serve(always())
    client = token_client_for(server)
    client.post("/x", {"onboot": True, "agent": False, "memory": 512, "tags": ["a", "b"], "pool": None, "args": ""})
    client.delete("/x", {"purge": True, "name": "a b"})
    write, removal = server.requests
    assert write.form == {"onboot": ["1"], "agent": ["0"], "memory": ["512"], "tags": ["a", "b"], "args": [""]}
    assert removal.form == {"purge": ["1"], "name": ["a b"]}


def test_no_secret_in_logs_or_errors(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    echo = b'{"data":null,"message":"bad value \'new-guest-pw\' and s3cret-pass","errors":{"x":"got \'new-guest-pw\'"}}'
    server = serve(in_turn(Answer("ok"), Answer(status=400, body=echo), DROP))
    client = client_for(server)
    loud = [logging.getLogger(name) for name in ("proxmoxer.core", "proxmoxer", "urllib3", "requests")]
    levels = [logger.level for logger in loud]
    for logger in loud:
        logger.setLevel(logging.DEBUG)
    said = [repr(client.connection)]
    with caplog.at_level(logging.DEBUG):
        client.put("/nodes/pve1/qemu/100/config", {"cipassword": "new-guest-pw"})
        for _attempt in range(2):
            with pytest.raises(PveError) as caught:
                client.put("/nodes/pve1/qemu/100/config", {"cipassword": "new-guest-pw"})
            said += [str(caught.value), repr(caught.value)]
            assert caught.value.__cause__ is None
    for logger, level in zip(loud, levels, strict=True):
        logger.setLevel(level)
    said.append(caplog.text)
    assert "urllib3" in caplog.text
    for secret in ("s3cret-pass", "new-guest-pw", "TICKET", "CSRF-TOKEN"):
        assert secret not in "\n".join(said)


@given(st.text(min_size=1, max_size=30).filter(lambda text: text not in (".", "..")))
def test_segment_is_one_segment(text: str) -> None:
    quoted = segment(text)
    assert unquote(quoted) == text
    assert not set("/?#% ") & set(quoted.replace("%", "", quoted.count("%")))


@pytest.mark.parametrize("text", ["", ".", ".."])
def test_segment_cannot_climb(text: str) -> None:
    with pytest.raises(ValueError, match="part of a path"):
        segment(text)


def test_segment_arrives_as_it_was(serve: Serve) -> None:
    server = serve(always())
    token_client_for(server).get(f"/pools/{segment('a/../b c%?#ü')}")
    assert unquote(server.requests[0].path) == "/pools/a/../b c%?#ü"
