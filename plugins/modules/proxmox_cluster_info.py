#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_cluster_info
short_description: Health, version and nodes of the clusters in a registry
version_added: 0.1.0
description:
  - Asks one cluster, or all clusters of the registry at the same time, for version, quorum and nodes.
  - A cluster that cannot be reached or refuses is no failure of the module, it is what the result says.
author:
  - PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.info
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  cluster:
    description:
      - Name of the one cluster to ask.
      - Without it and without single options such as O(api_host), all clusters of the registry are asked.
    type: str
    aliases: [name]
notes:
  - E(PVEFLEET_CLUSTER) and a host in the environment do not narrow the result.
seealso:
  - module: pvefleet.infra.proxmox_cluster
"""

EXAMPLES = r"""
- name: How are all clusters?
  pvefleet.infra.proxmox_cluster_info:
  register: found
  delegate_to: localhost

- name: Stop when one of them is not well
  ansible.builtin.assert:
    that: found.clusters | rejectattr('status', 'equalto', 'healthy') | length == 0

- name: Version of one cluster
  pvefleet.infra.proxmox_cluster_info:
    name: prod
  delegate_to: localhost
"""

RETURN = r"""
clusters:
  description: The clusters, by name. Credentials are never returned.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description:
        - Identity of the entry. V(null) for one written by hand, and for a cluster that is not in the registry.
      type: str
      returned: always
      sample: 550e8400-e29b-41d4-a716-446655440000
    name:
      description: Name of the entry. V(null) for a cluster that is not in the registry.
      type: str
      returned: always
      sample: prod
    api_endpoint:
      description: The address that is tried first.
      type: str
      returned: always
      sample: https://pve1.example.com:8006
    endpoints:
      description: All addresses, in the order in which they are tried.
      type: list
      elements: str
      returned: always
      sample: [https://pve1.example.com:8006, https://pve2.example.com:8006]
    status:
      description:
        - V(healthy) when all nodes are online and there is a quorum, V(degraded) when a node is offline, V(unhealthy)
          when there is no quorum or the cluster refused the credentials, V(unknown) when it could not be reached.
      type: str
      returned: always
      sample: healthy
    error:
      description: Why nothing could be learnt from the cluster. V(null) when it answered.
      type: str
      returned: always
      sample: "https://pve1.example.com:8006: connection refused"
    proxmox_version:
      description: Version of the node that answered.
      type: str
      returned: always
      sample: 9.1.7
    node_count:
      description: Number of nodes, those that are offline included.
      type: int
      returned: always
      sample: 3
    quorate:
      description: Whether the cluster has a quorum. V(null) for a standalone node, and when it is not known.
      type: bool
      returned: always
      sample: true
    nodes:
      description: The nodes.
      type: list
      elements: dict
      returned: always
      sample: [{name: pve1, ip: 192.0.2.11, online: true}]
    default:
      description: Whether this is the default cluster.
      type: bool
      returned: always
      sample: true
    default_node:
      description: Node on which new servers are made when a task names none.
      type: str
      returned: always
      sample: pve1
    default_storage:
      description: Storage on which new disks are made when a task names none.
      type: str
      returned: always
      sample: local-lvm
    created_at:
      description: When the entry was made. V(null) where C(id) is.
      type: str
      returned: always
      sample: "2026-01-11T10:30:00Z"
    updated_at:
      description: When the entry was last changed. V(null) where C(id) is.
      type: str
      returned: always
      sample: "2026-01-11T10:30:00Z"
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import cluster_entry
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
    single_options,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.registry import (
    Registry,
    RegistryError,
    default_path,
    load,
)

PARALLEL = 8


def one(registry: Registry, name: str, timeouts: Mapping[str, float]) -> dict[str, Any]:
    """A cluster of the registry as it is now."""
    entry, default = registry.clusters[name], registry.default == name
    try:
        connection = registry.connection(name, **timeouts)
    except RegistryError as error:
        return {**cluster_entry.document(name, entry, None, "unknown", default), "error": str(error)}
    facts, status, trouble = cluster_entry.measured(connection)
    return {**cluster_entry.document(name, entry, facts, status, default), "error": trouble}


def ask(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The clusters that the parameters mean. ConnectionParamsError when they mean none."""
    if single_options(params):
        connection = connection_from_params(params)
        facts, status, trouble = cluster_entry.measured(connection)
        shown = cluster_entry.document(None, {"endpoints": connection.endpoints}, facts, status, False)
        return [{**shown, "error": trouble}]
    registry = load(params["registry"] or default_path())
    timeouts = {option: params[option] for option in ("connect_timeout", "read_timeout")}
    names = [registry.pick(params["cluster"])] if params["cluster"] else sorted(registry.clusters)
    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(lambda name: one(registry, name, timeouts), names))


def main() -> None:
    spec = {**connection_argument_spec(), "cluster": {"type": "str", "aliases": ["name"]}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    try:
        clusters = ask(module.params)
    except ConnectionParamsError as error:
        module.fail_json(msg=f"Unable to ask the clusters: {error}")
    module.exit_json(changed=False, clusters=clusters)


if __name__ == "__main__":
    main()
