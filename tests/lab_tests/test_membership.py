# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Standalone nodes, forming and joining a cluster, quorum, removal: as PVE answers them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import urllib3

from tests.lab import Lab, LabSite, standalone_nodes
from tests.lab.site import LabNode


class Api:
    """root@pam at one node, who trusts everybody."""

    def __init__(self, node: LabNode, password: str | None = None) -> None:
        self.base = f"{node.api_endpoint}/api2/json"
        self.http = requests.Session()
        self.http.trust_env = False  # no CA and no proxy of the environment
        self.http.verify = False
        login = {"username": "root@pam", "password": password or node.password}
        answer = self.http.post(f"{self.base}/access/ticket", data=login, timeout=5)
        answer.raise_for_status()
        ticket = answer.json()["data"]
        self.http.headers["CSRFPreventionToken"] = ticket["CSRFPreventionToken"]
        self.http.headers["Cookie"] = f"PVEAuthCookie={ticket['ticket']}"

    def call(self, method: str, path: str, **values: Any) -> requests.Response:
        place = "params" if method == "GET" else "data"
        return self.http.request(method, self.base + path, timeout=5, **{place: values})

    def get(self, path: str) -> Any:
        return self.call("GET", path).json()["data"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[LabSite]:
    marker = request.node.get_closest_marker("lab")
    running = standalone_nodes(3, **{"time_scale": 0.02, **(marker.kwargs if marker else {})})
    yield running
    running.stop()


def ended(site: LabSite, upid: str) -> dict[str, Any]:
    """The record of a task, once it is over."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for node in site.nodes.values():
            record = node.pve.tasks.get(upid)
            if record is not None and record["status"] == "stopped":
                return dict(record)
        time.sleep(0.01)
    raise AssertionError(upid)


def form(site: LabSite, node: str = "pve1", name: str = "lab") -> None:
    record = ended(site, Api(site[node]).call("POST", "/cluster/config", clustername=name).json()["data"])
    assert (record["exitstatus"], record["type"]) == ("OK", "clustercreate")


def join(site: LabSite, name: str, peer: str = "pve1", **changes: Any) -> dict[str, Any]:
    other = site[peer]
    values = {"hostname": other.host, "password": other.password, "fingerprint": other.fingerprint, **changes}
    return ended(site, Api(site[name]).call("POST", "/cluster/config/join", **values).json()["data"])


def test_a_node_of_its_own(site: LabSite) -> None:
    api = Api(site["pve2"])
    assert [(row["type"], row["name"], row["local"]) for row in api.get("/cluster/status")] == [("node", "pve2", 1)]
    answer = api.call("GET", "/cluster/config/join")
    assert (answer.status_code, answer.reason) == (424, "node is not in a cluster, no join info available!")
    assert api.get("/cluster/config/nodes") == []
    assert api.get("/cluster/config/totem") is None
    assert site["pve2"].password != site["pve1"].password
    with pytest.raises(requests.HTTPError):
        Api(site["pve2"], site["pve1"].password)


def test_a_new_cluster(site: LabSite) -> None:
    form(site)
    api = Api(site["pve1"])
    info = api.get("/cluster/config/join")
    assert info["preferred_node"] == "pve1"
    assert [(row["name"], row["pve_addr"], row["pve_fp"]) for row in info["nodelist"]] == [
        ("pve1", site["pve1"].host, site["pve1"].fingerprint)
    ]
    assert info["totem"]["cluster_name"] == "lab"
    again = api.call("POST", "/cluster/config", clustername="lab")
    assert (again.status_code, again.reason) == (500, "cluster config '/etc/pve/corosync.conf' already exists")


def test_a_joined_node_is_another_one(site: LabSite) -> None:
    form(site)
    site.do(site["pve1"].pve.add_user, "ops@pve", "x")
    before, session = site["pve2"].fingerprint, Api(site["pve2"])
    assert join(site, "pve2")["exitstatus"] == "OK"
    assert session.call("GET", "/version").status_code == 401
    assert site["pve2"].fingerprint not in (before, site["pve1"].fingerprint)
    # the certificate is good by the cluster's CA; there is only no login
    url = f"{site['pve2'].api_endpoint}/api2/json/version"
    assert requests.get(url, verify=site["pve1"].ca_file, timeout=5).status_code == 401
    for name in ("pve1", "pve2"):
        api = Api(site[name])
        rows = api.get("/cluster/status")
        assert (rows[0]["name"], rows[0]["quorate"], rows[0]["nodes"]) == ("lab", 1, 2)
        assert [row["name"] for row in rows[1:] if row["local"]] == [name]
        found = {row["name"]: row["pve_fp"] for row in api.get("/cluster/config/join")["nodelist"]}
        assert found == {"pve1": site["pve1"].fingerprint, "pve2": site["pve2"].fingerprint}
        assert {row["node"] for row in api.get("/cluster/resources") if row["type"] == "node"} == {"pve1", "pve2"}
        login = {"username": "ops@pve", "password": "x"}
        assert requests.post(f"{api.base}/access/ticket", data=login, verify=False, timeout=5).ok


@pytest.mark.lab(time_scale=0.3)  # long enough for each state to be seen
def test_what_a_client_sees_meanwhile(site: LabSite) -> None:
    """An answer that is no JSON, dead tickets, a quorum that is away, refused connections."""
    form(site)
    peer, session = Api(site["pve1"]), Api(site["pve2"])
    quorate, seen = set(), set()

    def look(stage: str) -> None:
        quorate.add((stage, site["pve1"].pve.quorate))

    site.at_stage = look
    values = {"hostname": site["pve1"].host, "password": site["pve1"].password}
    upid = session.call("POST", "/cluster/config/join", fingerprint=site["pve1"].fingerprint, **values).json()["data"]
    deadline = time.monotonic() + 10
    while not (site["pve2"].pve is site["pve1"].pve and site["pve2"].answers) and time.monotonic() < deadline:
        try:
            answer = session.call("GET", f"/nodes/pve2/tasks/{upid}/status")
            seen.add("no JSON" if answer.status_code == 200 and not answer.text else str(answer.status_code))
        except requests.ConnectionError:
            seen.add("no connection")
    assert {"no JSON", "401", "no connection"} <= seen
    assert quorate == {("added", False), ("stopped", False), ("quorate", True)}
    assert ended(site, upid)["exitstatus"] == "OK"
    assert peer.get(f"/nodes/pve2/tasks/{upid}/status")["exitstatus"] == "OK"


@pytest.mark.parametrize(
    ("changes", "exitstatus"),
    [
        ({"password": "guessed"}, "401 authentication failure"),
        ({"fingerprint": ":".join(["AB"] * 32)}, "500 Can't connect to"),
        ({"hostname": "127.99.99.99"}, "500 Can't connect to 127.99.99.99"),
    ],
)
def test_a_join_that_the_peer_does_not_take(site: LabSite, changes: dict[str, str], exitstatus: str) -> None:
    form(site)
    assert join(site, "pve2", **changes)["exitstatus"].startswith(exitstatus)
    assert sorted(site["pve1"].pve.nodes) == ["pve1"]
    assert join(site, "pve2")["exitstatus"] == "OK"


def test_joins_that_pve_refuses(site: LabSite) -> None:
    form(site)
    site.do(site["pve2"].pve.add_vm, 100, "web-01", node="pve2")
    refused = join(site, "pve2")
    assert refused["exitstatus"] == "Check if node may join a cluster failed!"
    assert "* this host already contains virtual guests" in refused["log"]
    form(site, "pve3", "other")
    refused = join(site, "pve3")
    assert "* cluster config '/etc/pve/corosync.conf' already exists" in refused["log"]
    site.do(site["pve2"].pve.vms.clear)
    site.do(site["pve1"].pve.lose_quorum)
    refused = join(site, "pve2")
    assert refused["exitstatus"] == "Cluster join aborted!"
    assert "An error occurred on the cluster node: cluster not ready - no quorum?" in refused["log"]


def test_only_root_itself(lab: Lab) -> None:
    headers = {"Authorization": f"PVEAPIToken={lab.token_id}={lab.token_secret}"}
    for method, path, values in (
        ("POST", "/cluster/config", {"clustername": "lab"}),
        ("POST", "/cluster/config/join", {"hostname": "a", "password": "b", "fingerprint": ":".join(["AB"] * 32)}),
        ("DELETE", "/cluster/config/nodes/pve2", {}),
    ):
        url = f"{lab.api_endpoint}/api2/json{path}"
        answer = requests.request(method, url, data=values, headers=headers, verify=lab.ca_file, timeout=5)
        assert (answer.status_code, answer.reason) == (403, "Permission check failed (user != root@pam)")


def test_power_and_quorum(site: LabSite) -> None:
    form(site)
    for name in ("pve2", "pve3"):
        assert join(site, name)["exitstatus"] == "OK"
    api = Api(site["pve1"])
    site.power_off("pve3")
    assert [row.get("quorate", row.get("online")) for row in api.get("/cluster/status")] == [1, 1, 1, 0]
    with pytest.raises(requests.ConnectionError):
        Api(site["pve3"])
    assert api.call("GET", "/nodes/pve3/qemu").status_code == 595
    site.power_off("pve2")
    assert api.get("/cluster/status")[0]["quorate"] == 0
    refused = api.call("DELETE", "/cluster/config/nodes/pve3")
    assert (refused.status_code, refused.reason) == (500, "cluster not ready - no quorum?")
    site.power_on("pve2")
    assert api.get("/cluster/status")[0]["quorate"] == 1
    Api(site["pve2"])


def test_removal(site: LabSite) -> None:
    form(site)
    for name in ("pve2", "pve3"):
        join(site, name)
    api = Api(site["pve1"])
    assert api.call("DELETE", "/cluster/config/nodes/pve1").reason == "Cannot delete myself from cluster!"
    assert api.call("DELETE", "/cluster/config/nodes/pve7").reason == (
        "Node/IP: pve7 is not a known host of the cluster."
    )
    site.power_off("pve3")
    # it says that it failed, and has done it
    assert api.call("DELETE", "/cluster/config/nodes/pve3").reason == (
        "command 'corosync-cfgtool -k 3' failed: exit code 1"
    )
    assert [row["node"] for row in api.get("/cluster/config/nodes")] == ["pve1", "pve2"]
    # PVE does not look whether the node is online, and it is out at once
    assert api.call("DELETE", "/cluster/config/nodes/pve2").status_code == 200
    with pytest.raises(requests.ConnectionError):
        Api(site["pve2"])
    site.reinstall("pve2")
    assert join(site, "pve2")["exitstatus"] == "OK"
