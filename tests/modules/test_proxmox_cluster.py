# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""proxmox_cluster and proxmox_cluster_info against the lab."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.registry import load

from tests.modules.conftest import RunModule

DEAD = "127.0.0.1:1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry" / "clusters.yml"


@pytest.fixture
def prod(lab: Any, path: Path) -> dict[str, Any]:
    """Parameters that register the lab by password."""
    return {
        "name": "prod",
        "registry": str(path),
        "api_host": lab.api_endpoint,
        "api_user": lab.username,
        "api_password": lab.password,
        "ca_path": lab.ca_file,
    }


def test_cluster_is_asked_and_recorded(run_module: RunModule, lab: Any, path: Path, prod: dict[str, Any]) -> None:
    result = run_module("proxmox_cluster", prod)
    assert result["changed"]
    shown = result["cluster"]
    assert str(uuid.UUID(shown["id"])) == shown["id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown["created_at"])
    assert shown["updated_at"] == shown["created_at"]
    assert (shown["name"], shown["api_endpoint"], shown["status"]) == ("prod", lab.api_endpoint, "healthy")
    assert (shown["node_count"], shown["quorate"], shown["default"]) == (2, True, False)
    assert [node["name"] for node in shown["nodes"]] == lab.nodes
    assert shown["proxmox_version"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(str(path)).connection("prod").password == lab.password
    assert lab.password not in result["output"]
    assert len(lab.requests) == 3


def test_check_mode_predicts_and_writes_nothing(run_module: RunModule, path: Path, prod: dict[str, Any]) -> None:
    foretold = run_module("proxmox_cluster", prod, check=True)
    assert not path.parent.exists()
    done = run_module("proxmox_cluster", prod)
    assert foretold["changed"]
    assert foretold["diff"] == done["diff"]
    assert foretold["diff"]["after"]["password"] == "********"


def test_second_run_changes_nothing(run_module: RunModule, path: Path, prod: dict[str, Any]) -> None:
    first = run_module("proxmox_cluster", prod)
    text = path.read_bytes()
    second = run_module("proxmox_cluster", prod)
    assert not second["changed"]
    assert second["cluster"] == first["cluster"]
    assert path.read_bytes() == text
    assert not run_module("proxmox_cluster", {"name": "prod", "registry": str(path)})["changed"]


def test_token_and_pin_replace_password_and_ca(
    run_module: RunModule, lab: Any, path: Path, prod: dict[str, Any]
) -> None:
    first = run_module("proxmox_cluster", prod)["cluster"]
    change = {
        "name": "prod",
        "registry": str(path),
        "api_token_id": lab.token_id,
        "api_token_secret": lab.token_secret,
        "tls_fingerprint": lab.fingerprint,
        "default": True,
        "default_storage": "local-lvm",
    }
    result = run_module("proxmox_cluster", change)
    assert result["changed"]
    assert lab.token_secret not in result["output"]
    assert (result["cluster"]["id"], result["cluster"]["created_at"]) == (first["id"], first["created_at"])
    assert result["diff"]["before"].keys() == {"user", "password", "ca_path", "default"}
    assert result["diff"]["after"].keys() == {
        "token_id", "token_secret", "tls_fingerprint", "default", "default_storage",
    }  # fmt: skip
    connection = load(str(path)).connection()
    assert (connection.name, connection.token_secret, connection.password) == ("prod", lab.token_secret, None)
    assert not run_module("proxmox_cluster", change)["changed"]


def test_new_secret_is_a_change_that_shows_no_secret(
    run_module: RunModule, lab: Any, path: Path, prod: dict[str, Any]
) -> None:
    run_module("proxmox_cluster", prod)
    registry = yaml.safe_load(path.read_text())
    registry["clusters"]["prod"]["password"] = "an-older-one"
    path.write_text(yaml.safe_dump(registry))
    result = run_module("proxmox_cluster", prod)
    assert result["changed"]
    assert "an-older-one" not in result["output"]
    assert result["diff"]["before"] == {"password": "********"}
    assert result["diff"]["after"] == {"password": "******** (changed)"}


def test_reference_to_a_secret_stays_while_it_leads_to_the_same(
    run_module: RunModule, lab: Any, path: Path, prod: dict[str, Any]
) -> None:
    run_module("proxmox_cluster", prod)
    (path.parent / "prod.password").write_text(lab.password + "\n")
    registry = yaml.safe_load(path.read_text())
    registry["clusters"]["prod"]["password"] = {"file": "prod.password"}
    path.write_text(yaml.safe_dump(registry))
    assert not run_module("proxmox_cluster", prod)["changed"]
    run_module("proxmox_cluster", {**prod, "default_node": "pve2"})
    assert yaml.safe_load(path.read_text())["clusters"]["prod"]["password"] == {"file": "prod.password"}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"api_host": DEAD}, "connection refused"),
        ({"api_password": "wrong-one"}, "does not accept the login"),
        ({"ca_path": None}, "not trusted"),
        ({"ca_path": None, "tls_fingerprint": "00" * 32}, "not the pinned one"),
        ({"ca_path": "/nonexistent/ca.pem"}, "Unable to read the CA file /nonexistent/ca.pem"),
        ({"api_user": None}, "the user is missing"),
        ({"api_host": None}, "an address of the Proxmox VE API is missing"),
        ({"api_host": "http://pve1"}, "must be reached by https"),
        ({"name": "two\nlines"}, "a cluster's name"),
        ({"endpoints": ["pve1"]}, "mutually exclusive"),
        ({"api_token_id": "x"}, "mutually exclusive"),
    ],
)
def test_what_cannot_be_asked_is_not_recorded(
    run_module: RunModule, path: Path, prod: dict[str, Any], change: dict[str, Any], complaint: str
) -> None:
    given = {key: value for key, value in {**prod, **change}.items() if value is not None}
    result = run_module("proxmox_cluster", given, fails=True)
    assert complaint in result["msg"]
    assert "Traceback" not in result["output"]
    assert "wrong-one" not in result["output"]
    assert not path.exists()


def test_forgetting(run_module: RunModule, lab: Any, path: Path, prod: dict[str, Any]) -> None:
    gone = {"name": "prod", "registry": str(path), "state": "absent"}
    assert not run_module("proxmox_cluster", gone)["changed"]
    run_module("proxmox_cluster", {**prod, "default": True})
    before = len(lab.requests)
    assert run_module("proxmox_cluster", gone, check=True)["changed"]
    assert "prod" in load(str(path)).clusters
    result = run_module("proxmox_cluster", gone)
    assert result["changed"]
    assert result["diff"]["before"]["default"] is True
    registry = load(str(path))
    assert (registry.clusters, registry.default) == ({}, None)
    assert not run_module("proxmox_cluster", gone)["changed"]
    assert len(lab.requests) == before


def test_environment_does_not_slip_into_an_entry(run_module: RunModule, lab: Any, prod: dict[str, Any]) -> None:
    given = {key: value for key, value in prod.items() if key != "api_password"}
    environment = {"PROXMOX_PASSWORD": lab.password}
    result = run_module("proxmox_cluster", given, environment=environment, fails=True)
    assert "a password or an API token is missing" in result["msg"]


def test_lost_quorum_and_offline_nodes_show(run_module: RunModule, lab: Any, prod: dict[str, Any]) -> None:
    lab.do(lab.pve.lose_quorum)
    assert run_module("proxmox_cluster", prod)["cluster"]["status"] == "unhealthy"


# ---------------------------------------------------------------- _info


def test_info_of_all_and_of_one(run_module: RunModule, lab: Any, path: Path, prod: dict[str, Any]) -> None:
    recorded = run_module("proxmox_cluster", {**prod, "default": True})["cluster"]
    registry = yaml.safe_load(path.read_text())
    registry["clusters"]["dead"] = {"endpoints": [DEAD], "user": "root@pam", "password": "x"}
    registry["clusters"]["wrong"] = {**registry["clusters"]["prod"], "password": "wrong-one"}
    registry["clusters"]["lost"] = {**registry["clusters"]["prod"], "password": {"env": "NOT_SET"}}
    path.write_text(yaml.safe_dump(registry))
    result = run_module("proxmox_cluster_info", {"registry": str(path)}, environment={"PVEFLEET_CLUSTER": "dead"})
    assert not result["changed"]
    found = {cluster["name"]: cluster for cluster in result["clusters"]}
    assert [cluster["name"] for cluster in result["clusters"]] == ["dead", "lost", "prod", "wrong"]
    assert found["prod"] == {**recorded, "error": None}
    assert (found["dead"]["status"], found["dead"]["node_count"]) == ("unknown", None)
    assert "connection refused" in found["dead"]["error"]
    assert found["wrong"]["status"] == "unhealthy"
    assert found["lost"]["status"] == "unknown"
    assert "NOT_SET" in found["lost"]["error"]
    assert lab.password not in result["output"]
    assert "wrong-one" not in result["output"]
    one = run_module("proxmox_cluster_info", {"name": "prod", "registry": str(path)})
    assert [cluster["name"] for cluster in one["clusters"]] == ["prod"]


def test_info_without_a_registry(run_module: RunModule, lab: Any, path: Path, prod: dict[str, Any]) -> None:
    single = {key: value for key, value in prod.items() if key not in ("name", "registry")}
    (cluster,) = run_module("proxmox_cluster_info", single)["clusters"]
    assert (cluster["name"], cluster["status"], cluster["node_count"]) == (None, "healthy", 2)
    result = run_module("proxmox_cluster_info", {"registry": str(path)}, fails=True)
    assert "No such file" in result["msg"]
    result = run_module("proxmox_cluster_info", {**single, "cluster": "prod"}, fails=True)
    assert "cluster and api_host" in result["msg"]


@pytest.mark.lab(nodes=1)
def test_one_node_without_a_quorum_to_lose_is_healthy(run_module: RunModule, lab: Any, prod: dict[str, Any]) -> None:
    shown = run_module("proxmox_cluster", prod)["cluster"]
    assert (shown["status"], shown["node_count"]) == ("healthy", 1)
