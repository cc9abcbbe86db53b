# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cluster a task means: its parameters, its environment, the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    SINGLE,
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.credentials import endpoint_url
from hypothesis import given
from hypothesis import strategies as st

ENV_HOST = {"PROXMOX_HOST": "env.example", "PROXMOX_USER": "env@pam", "PROXMOX_PASSWORD": "env-pw"}


@pytest.fixture
def registry(tmp_path: Path) -> str:
    path = tmp_path / "clusters.yml"
    path.write_text(
        "clusters:\n"
        "  prod: {endpoints: [prod.example], user: root@pam, password: {file: pw}}\n"
        "  lab: {endpoints: [lab.example], user: root@pam, password: {file: pw}}\n"
        "default: lab\n"
    )
    (tmp_path / "pw").write_text("x")
    return str(path)


def connect(environment: dict[str, str] | None = None, **params: Any) -> Any:
    return connection_from_params(params, {"HOME": "/nonexistent", **(environment or {})})


def test_single_options_alone() -> None:
    connection = connect(api_host="pve1", api_user="root@pam", api_password="x", connect_timeout=1.5)
    assert connection.endpoints == ("https://pve1:8006",)
    assert (connection.user, connection.password, connection.connect_timeout) == ("root@pam", "x", 1.5)
    assert connection.validate_certs


def test_cluster_of_the_registry(registry: str) -> None:
    assert connect(cluster="prod", registry=registry).name == "prod"
    assert connect(registry=registry).name == "lab"
    assert connect({"PVEFLEET_CLUSTER": "prod", "PVEFLEET_REGISTRY": registry}).name == "prod"
    assert connect({"PVEFLEET_REGISTRY": registry}).name == "lab"


def test_what_another_tool_left_in_the_environment_does_not_disturb(registry: str) -> None:
    assert connect(ENV_HOST, cluster="prod", registry=registry).endpoints == ("https://prod.example:8006",)
    assert connect(ENV_HOST, registry=registry).name == "lab"
    assert connect({**ENV_HOST, "PVEFLEET_CLUSTER": "prod", "PVEFLEET_REGISTRY": registry}).name == "prod"
    assert connect({**ENV_HOST, "PVEFLEET_CLUSTER": "prod"}, api_host="task.example").endpoints == (
        "https://task.example:8006",
    )


def test_environment_alone_and_ours_before_others() -> None:
    assert connect(ENV_HOST).endpoints == ("https://env.example:8006",)
    connection = connect({**ENV_HOST, "PVEFLEET_API_HOST": "ours.example", "PROXMOX_PORT": "443"})
    assert connection.endpoints == ("https://ours.example:443",)


@pytest.mark.parametrize("option", SINGLE)
def test_cluster_and_a_single_option_contradict_each_other(registry: str, option: str) -> None:
    with pytest.raises(ConnectionParamsError, match=rf"^cluster and {option} exclude each other"):
        connect(cluster="prod", registry=registry, **{option: False if option == "validate_certs" else "x"})


def test_login_of_the_task_displaces_the_other_kind_in_the_environment() -> None:
    token = {"PROXMOX_TOKEN_ID": "fleet", "PROXMOX_TOKEN_SECRET": "s"}
    assert connect({**ENV_HOST, **token}).token_id == "fleet"
    assert connect({**ENV_HOST, **token}, api_password="x").token_id is None
    connection = connect(ENV_HOST, api_token_id="fleet", api_token_secret="s")
    assert (connection.token_id, connection.password) == ("fleet", None)
    with pytest.raises(ConnectionParamsError, match="not both"):
        connect(ENV_HOST, api_token_id="fleet", api_token_secret="s", api_password="x")


def test_trust_of_the_task_displaces_the_environment_s() -> None:
    pin = {"PROXMOX_TLS_FINGERPRINT": "ab" * 32}
    assert connect({**ENV_HOST, **pin}).tls_fingerprint == "ab" * 32
    connection = connect({**ENV_HOST, **pin}, ca_path="/ca.pem")
    assert (connection.tls_fingerprint, connection.ca_path) == (None, "/ca.pem")
    assert connect({**ENV_HOST, **pin}, validate_certs=True).tls_fingerprint is None


@pytest.mark.parametrize(
    ("text", "expected"), [("false", False), ("No", False), ("0", False), ("true", True), ("1", True), ("ON", True)]
)
def test_validate_certs_of_the_environment(text: str, expected: bool) -> None:
    assert connect({**ENV_HOST, "PROXMOX_VALIDATE_CERTS": text}).validate_certs is expected


@pytest.mark.parametrize(
    ("environment", "params", "complaint"),
    [
        ({}, {}, "which cluster"),
        ({}, {"api_user": "root@pam"}, "neither api_host"),
        ({}, {"api_host": "pve1", "api_password": "x"}, "user is missing"),
        ({}, {"api_host": "pve1", "api_user": "root", "api_password": "x"}, "name@realm"),
        ({}, {"api_host": "pve1", "api_user": "root@pam"}, "a password or an API token is missing"),
        ({}, {"api_host": "h", "api_user": "a@pam", "api_token_id": "b@pam!t", "api_token_secret": "s"}, "belongs to"),
        ({}, {"api_host": "pve1", "api_token_id": "b@pam!t", "api_token_secret": "s\nX: y"}, "printable"),
        ({}, {"api_host": "pve1", "api_user": "a@pam", "api_password": "\ud800"}, "half a surrogate pair"),
        ({}, {"api_host": "pve1", "api_user": "a@pam", "api_password": "x", "read_timeout": -1.0}, "read_timeout"),
        ({**ENV_HOST, "PROXMOX_VALIDATE_CERTS": "maybe"}, {}, "PROXMOX_VALIDATE_CERTS must be true or false"),
        ({**ENV_HOST, "PROXMOX_PORT": "http"}, {}, "PROXMOX_PORT must be a port"),
        ({"PVEFLEET_CLUSTER": "prod", "PVEFLEET_REGISTRY": "/nonexistent/c.yml"}, {}, "No such file"),
    ],
)
def test_what_is_missing_or_wrong_is_one_sentence(
    environment: dict[str, str], params: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConnectionParamsError, match=complaint):
        connect({"PVEFLEET_REGISTRY": "/nonexistent/none.yml", **environment}, **params)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pve1", "https://pve1:8006"),
        ("pve1.example.com.", "https://pve1.example.com.:8006"),
        ("pve1:443", "https://pve1:443"),
        (" https://pve1/ ", "https://pve1:8006"),
        ("https://192.0.2.1:18006", "https://192.0.2.1:18006"),
        ("2001:db8::1", "https://[2001:db8::1]:8006"),
        ("[2001:db8::1]", "https://[2001:db8::1]:8006"),
        ("[2001:db8::1]:443", "https://[2001:db8::1]:443"),
        ("https://[::1]:443", "https://[::1]:443"),
    ],
)
def test_address_becomes_an_endpoint(text: str, expected: str) -> None:
    assert endpoint_url(text) == expected
    assert endpoint_url(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "http://pve1", "ftp://pve1", "https://", "https://u:p@pve1", "root@pve1", "pve1/api2/json", "pve1?x=1",
        "pve1#x", "pve 1", "pve1:port", "pve1:0", "pve1:65536", "a:b:c", "[::1", "-pve", "pve1\nX: y", "https://pve1?",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConnectionParamsError) as caught:
        endpoint_url(text)
    assert "u:p" not in str(caught.value)


@given(st.text(max_size=40))
def test_endpoint_is_stable_or_refused(text: str) -> None:
    try:
        url = endpoint_url(text)
    except ConnectionParamsError:
        return
    assert endpoint_url(url) == url
    assert url.startswith("https://")
    assert not set(url[8:]) & set("/?#@\\ \t\r\n")


def test_every_option_is_documented_and_the_other_way_round() -> None:
    import yaml
    from ansible_collections.pvefleet.infra.plugins.doc_fragments.connection import ModuleDocFragment

    options = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    spec = connection_argument_spec()
    assert options.keys() == spec.keys()
    for name, option in options.items():
        assert option["type"] == spec[name]["type"]
        assert option.get("default") == spec[name].get("default")
        for variable in SINGLE.get(name, ()):
            assert f"E({variable})" in str(option["description"])
