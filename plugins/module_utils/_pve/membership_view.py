# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes and clusters say of their membership. Reads only."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError, PveUnreachable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing, record, strange
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_plan import Node, View
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.transport import colons, tls_context


def observe(client: PveClient) -> View:
    """Raises PveError."""
    about = client.get("/version")
    rows = listing(client, "/cluster/status")
    whole = next((row for row in rows if row.get("type") == "cluster"), None)
    local = next((row["name"] for row in rows if row.get("type") == "node" and row.get("local") in (1, "1")), None)
    if local is None or not isinstance(about, dict):
        raise strange(client, "/cluster/status")
    addresses: dict[str, set[str]] = {row["name"]: set() for row in rows if row.get("type") == "node"}
    for row in rows:
        if row.get("type") == "node" and row.get("ip"):
            addresses[row["name"]].add(row["ip"])
    # the status of a node that never came up has no address
    for row in listing(client, "/cluster/config/nodes") if whole else []:
        links = {value for key, value in row.items() if key.startswith("ring") and key.endswith("_addr")}
        addresses.setdefault(row.get("name") or row["node"], set()).update(links)
    online = {row["name"] for row in rows if row.get("type") == "node" and row.get("online") in (1, "1")}
    return View(
        local=local,
        version=str(about.get("version", "")),
        cluster=whole["name"] if whole else None,
        quorate=whole is None or whole.get("quorate") in (1, "1"),
        nodes={name: Node(name, name in online, frozenset(known)) for name, known in addresses.items()},
    )


def fingerprints(client: PveClient) -> dict[str, str]:
    """Node -> the fingerprint of its API's certificate, as the cluster has it. Raises PveError, also for a standalone
    node and while a new node has no certificate yet."""
    info = client.get("/cluster/config/join")
    rows = info.get("nodelist") if isinstance(info, dict) else None
    if not isinstance(rows, list):
        raise strange(client, "/cluster/config/join")
    return {row["name"]: row["pve_fp"].upper() for row in rows if row.get("pve_fp")}


def read_fingerprint(host: str, port: int, seconds: float, ca_path: str | None = None) -> str:
    """The fingerprint of the certificate that is shown there: verified when there is a CA, else anybody's. Nothing is
    sent. OSError, ValueError."""
    context = tls_context(validate_certs=bool(ca_path), ca_path=ca_path, ca_pem=None, tls_fingerprint=None)
    with (
        socket.create_connection((host, port), timeout=seconds) as raw,
        context.wrap_socket(raw, server_hostname=host) as tls,
    ):
        return colons(hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest())


def remains(client: PveClient, node: str) -> list[str]:
    """Guests on the node, and replication, HA rules and Ceph services that name it. Raises PveError."""
    guests = [called(row) for row in Resources.read(client).guests() if row.get("node") == node]
    jobs = [
        f"replication job {row.get('id')}"
        for row in listing(client, "/cluster/replication")
        if node in (row.get("target"), row.get("source"))
    ]
    return [*guests, *jobs, *_ha(client, node), *_ceph(client, node)]


def _ha(client: PveClient, node: str) -> list[str]:
    # Rules came with PVE 9, which has no groups any more; the other one is refused.
    found = []
    for kind, path, key in (("rule", "/cluster/ha/rules", "rule"), ("group", "/cluster/ha/groups", "group")):
        try:
            rows = listing(client, path)
        except PveUnreachable:
            raise
        except PveError:
            continue
        for row in rows:
            names = {part.partition(":")[0].strip() for part in str(row.get("nodes", "")).split(",")}
            if node in names:
                found.append(f"HA {kind} {row.get(key)}")
    return found


def _ceph(client: PveClient, node: str) -> list[str]:
    try:
        services = record(client, "/cluster/ceph/metadata")
    except PveUnreachable:
        raise
    except PveError:
        return []  # Ceph is not installed
    found = []
    for kind in ("mon", "mgr", "mds"):
        hosts = {row.get("hostname") for row in (services.get(kind) or {}).values()}
        if node in hosts:
            found.append(f"Ceph {kind}")
    numbers = [row.get("id") for row in services.get("osd") or [] if row.get("hostname") == node]
    return [*found, *(f"Ceph osd.{number}" for number in sorted(numbers, key=str))]


def called(row: Mapping[str, Any]) -> str:
    """A guest, as people call it."""
    kind = "server" if row["type"] == "qemu" else "container"
    name = row.get("name")
    return f"{kind} {row['vmid']} ({name})" if name else f"{kind} {row['vmid']}"


def resolved(host: str) -> frozenset[str]:
    """The host and what its name stands for; a name that nobody knows stands for nothing."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return frozenset({host})
    return frozenset({host, *(str(entry[4][0]) for entry in found)})


def address_of(node: Node | None) -> str | None:
    return min(node.addresses) if node is not None and node.addresses else None
