#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_cluster
short_description: Manage the clusters in a registry
version_added: 0.1.0
description:
  - Records a Proxmox VE cluster under a name, so that other modules need only that name to reach it.
  - The cluster is asked before anything is recorded. One that cannot be reached, or that refuses the credentials, is an
    error and leaves the registry as it was.
  - The registry is a YAML file. It is replaced as a whole, readable by its owner only, and comments in it are lost.
author:
  - PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.full
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  cluster:
    description:
      - Name of the entry.
    type: str
    required: true
    aliases: [name]
  state:
    description:
      - V(present) makes the entry what the other options say, and leaves as it is what they do not mention.
      - V(absent) removes it. Nothing is asked of the cluster, and nothing changes there.
    type: str
    choices: [present, absent]
    default: present
  endpoints:
    description:
      - Addresses of several nodes of the cluster, which are tried in turn. Each may be a name, an address or a URL.
      - Excludes O(api_host).
    type: list
    elements: str
  ca_pem:
    description:
      - The CA certificate to trust, as text. Excludes O(ca_path) and O(tls_fingerprint).
    type: str
  default:
    description:
      - Whether this is the cluster that is meant where none is named.
    type: bool
  default_node:
    description:
      - Node on which new servers are made when a task names none.
    type: str
  default_storage:
    description:
      - Storage on which new disks are made when a task names none.
    type: str
notes:
  - Only what the task says is recorded. Of the environment, only E(PVEFLEET_REGISTRY) counts.
  - Secrets are recorded in plain text in a file of mode 0600. An entry whose secret refers to an environment variable
    (C(env)), a file (C(file)) or is encrypted (C(!vault)) keeps it that way for as long as O(api_password) and
    O(api_token_secret) are not given, or are the same.
  - A registry that is encrypted by Ansible Vault stays encrypted. For that and for C(!vault) the Vault's password must
    be configured by C(ANSIBLE_VAULT_PASSWORD_FILE) or in C(ansible.cfg).
seealso:
  - module: pvefleet.infra.proxmox_cluster_info
"""

EXAMPLES = r"""
- name: Reach the production cluster by an API token
  pvefleet.infra.proxmox_cluster:
    name: prod
    endpoints:
      - pve1.example.com
      - pve2.example.com
    api_token_id: automation@pve!fleet
    api_token_secret: "{{ fleet_token }}"
    ca_path: /etc/ssl/pve-prod.pem
    default_storage: local-lvm
    default: true
    state: present
  delegate_to: localhost

- name: Trust one node by the fingerprint of its certificate
  pvefleet.infra.proxmox_cluster:
    name: lab
    api_host: 192.0.2.10
    api_user: root@pam
    api_password: "{{ lab_password }}"
    tls_fingerprint: "{{ lab_fingerprint }}"
  delegate_to: localhost

- name: Forget a cluster
  pvefleet.infra.proxmox_cluster:
    name: lab
    state: absent
  delegate_to: localhost
"""

RETURN = r"""
cluster:
  description: The recorded cluster, with its health as it was just measured. Credentials are never returned.
  returned: when O(state=present)
  type: dict
  contains:
    id:
      description: Identity of the entry. V(null) for an entry written by hand, and in check mode for a new one.
      type: str
      returned: always
      sample: 550e8400-e29b-41d4-a716-446655440000
    name:
      description: Name of the entry.
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
          when there is no quorum.
      type: str
      returned: always
      sample: healthy
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
      description: Whether the cluster has a quorum. V(null) for a standalone node.
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

import os
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import cluster_entry
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.registry import (
    Registry,
    RegistryError,
    default_path,
    edit,
    load,
    name_problem,
)


def argument_spec() -> dict[str, Any]:
    return {
        **connection_argument_spec(),
        "cluster": {"type": "str", "required": True, "aliases": ["name"]},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "endpoints": {"type": "list", "elements": "str"},
        "ca_pem": {"type": "str"},
        "default": {"type": "bool"},
        "default_node": {"type": "str"},
        "default_storage": {"type": "str"},
    }


def present(params: Mapping[str, Any], path: str, check_mode: bool) -> dict[str, Any]:
    """Asks the cluster, then records it. ConnectionParamsError, also when the cluster could not be asked."""
    name, default = params["cluster"], params["default"]
    registry = load(path) if os.path.exists(path) else Registry(path)
    entry = cluster_entry.merged(registry, name, params)
    timeouts = {option: params[option] for option in ("connect_timeout", "read_timeout")}
    try:
        connection = Registry(path, {name: entry}).connection(name, **timeouts)
    except RegistryError as error:
        raise ConnectionParamsError(error.cause) from None
    facts, status, trouble = cluster_entry.measured(connection)
    if facts is None:
        raise ConnectionParamsError(f"{trouble}. The registry was not changed")
    if check_mode:
        plan = cluster_entry.planned(registry, name, entry, default)
        if plan.changed:
            cluster_entry.applied(registry, name, entry, default)
    else:
        with edit(path) as registry:  # others may have changed it since: plan again under the lock
            entry = cluster_entry.merged(registry, name, params)
            plan = cluster_entry.planned(registry, name, entry, default)
            if plan.changed:
                cluster_entry.applied(registry, name, entry, default)
    shown = cluster_entry.document(name, registry.clusters[name], facts, status, registry.default == name)
    return {"changed": plan.changed, "diff": plan.diff(), "cluster": shown}


def absent(params: Mapping[str, Any], path: str, check_mode: bool) -> dict[str, Any]:
    """Removes the entry, if there is one."""
    name = params["cluster"]
    registry = load(path) if os.path.exists(path) else Registry(path)
    plan = cluster_entry.planned(registry, name, None, None)
    if name in registry.clusters and not check_mode:
        with edit(path) as registry:
            cluster_entry.applied(registry, name, None, None)
    return {"changed": plan.changed, "diff": plan.diff()}


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        mutually_exclusive=[
            ("endpoints", "api_host"),
            ("api_password", "api_token_id"),
            ("api_password", "api_token_secret"),
            ("ca_path", "ca_pem", "tls_fingerprint"),
        ],
        required_by={"api_port": ["api_host"]},
        supports_check_mode=True,
    )
    params = module.params
    problem = name_problem(params["cluster"])
    if problem:
        module.fail_json(msg=problem)
    path = params["registry"] or default_path()
    action = present if params["state"] == "present" else absent
    try:
        result = action(params, path, module.check_mode)
    except ConnectionParamsError as error:
        verb = "register" if params["state"] == "present" else "forget"
        module.fail_json(msg=f"Unable to {verb} cluster {params['cluster']}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
