#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_node_join
short_description: Join a node to a Proxmox VE cluster, or remove it
version_added: 0.2.0
description:
  - Makes a standalone node a member of a cluster, and forms the cluster on its first node if there is none yet.
  - Removes a node that is switched off for good from its cluster.
  - Joining replaces the configuration of the joining node by the cluster's. A node with guests is refused.
  - Proxmox VE takes all of this from C(root@pam) with its password only. An API token or another user is refused before
    anything is changed.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.full
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  state:
    description:
      - V(present) is a member of the cluster of O(peer), online, and the cluster has a quorum. The connection is to the
        joining node.
      - V(absent) is no member. The connection is to another node of the cluster.
    type: str
    choices: [present, absent]
    default: present
  peer:
    description:
      - A node of the cluster, or the one that is to form it. Needed for O(state=present).
    type: dict
    suboptions:
      address:
        description:
          - Its host name or address. The joining node must reach it there as well.
          - A port, as in V(pve1.example.com:8006), is for this module. Proxmox VE itself joins by port 8006 only.
        type: str
        required: true
      user:
        description: V(root@pam), there is no other.
        type: str
        default: root@pam
      password:
        description: Password of C(root@pam) at the peer.
        type: str
        required: true
      fingerprint:
        description:
          - SHA-256 fingerprint of the peer's certificate, as C(pvenode cert info) prints it there.
          - Without it and without O(peer.ca_path), the module reads it, shows it in its error, and joins nothing.
        type: str
      accept_fingerprint:
        description:
          - Whether to trust whatever certificate the peer shows. The fingerprint is in RV(peer_fingerprint).
          - Somebody between here and the peer gets its password then.
        type: bool
        default: false
      ca_path:
        description: File or folder with the CA certificates by which to trust the peer.
        type: path
      links:
        description:
          - The peer's addresses for the cluster's own network, V(link0) to V(link7), as for O(links). Used when it
            forms the cluster.
        type: dict
  cluster_name:
    description:
      - Name of the cluster. A peer that stands alone forms it. A peer that is in another cluster is an error.
      - At most 15 letters, digits and hyphens. It cannot be changed later.
    type: str
  node:
    description:
      - Name of the node. Needed for O(state=absent).
      - For O(state=present) the node's name is read from it, and must be this one if it is given.
    type: str
  links:
    description:
      - Addresses of the joining node for the cluster's own network, V(link0) to V(link7), each with V(,priority=N) if
        wanted. Proxmox VE takes the node's own address unless given.
    type: dict
  votes:
    description: Votes of the node in the cluster; Proxmox VE gives it one.
    type: int
  nodeid:
    description: Number of the node in the cluster; Proxmox VE takes the next free one.
    type: int
  force:
    description:
      - Whether O(state=absent) removes a node that still has guests, or that replication, HA rules or Ceph name.
    type: bool
    default: false
  quorum_timeout:
    description: Seconds until the node is online in the cluster and the cluster has a quorum.
    type: int
    default: 120
  timeout:
    description: Seconds a single task of PVE may take. Waiting for other joins to the same cluster may take as long.
    type: int
    default: 600
notes:
  - Joining gives the node another certificate and ends its tickets. A O(tls_fingerprint) of before is wrong from then
    on; RV(node.fingerprint) is the new one, as the cluster itself tells it. API tokens of the joining node are gone.
  - Whether the node is a member is asked at the peer. So a second run finds the node a member, by its address or
    O(node), although its certificate is no longer the one that the task names.
  - Joins to one cluster wait for each other, by a lock file below E(XDG_CACHE_HOME), C(~/.cache) unless set. Between
    controllers Proxmox VE's own lock does that.
  - The node's folder below C(/etc/pve/nodes) stays when it is removed, with the configuration of guests that were left.
"""

EXAMPLES = r"""
- name: A new node in cluster lab, which the peer forms if it stands alone
  pvefleet.infra.pve_node_join:
    api_host: 192.168.3.10
    api_user: root@pam
    api_password: "{{ new_node_password }}"
    tls_fingerprint: "{{ new_node_fingerprint }}"
    peer:
      address: 192.168.3.5
      password: "{{ peer_password }}"
      fingerprint: "{{ peer_fingerprint }}"
    cluster_name: lab

- name: The same with a network of its own for the cluster
  pvefleet.infra.pve_node_join:
    api_host: 192.168.3.10
    api_user: root@pam
    api_password: "{{ new_node_password }}"
    tls_fingerprint: "{{ new_node_fingerprint }}"
    peer:
      address: 192.168.3.5
      password: "{{ peer_password }}"
      fingerprint: "{{ peer_fingerprint }}"
      links:
        link0: 10.9.0.5
    links:
      link0: 10.9.0.10
    cluster_name: lab

- name: A node that was switched off for good is no member any more
  pvefleet.infra.pve_node_join:
    api_host: 192.168.3.5
    api_user: root@pam
    api_password: "{{ peer_password }}"
    tls_fingerprint: "{{ peer_fingerprint }}"
    node: pve3
    state: absent
"""

RETURN = r"""
node:
  description: The node as it is now, or would be.
  returned: success
  type: dict
  sample:
    name: pve2
    address: 192.168.3.10
    fingerprint: "74:47:B0:44:4E:E9:40:D4:4C:4F:F6:82:E7:75:8F:D5:0F:91:BF:13:E4:C6:8D:8F:BC:42:B4:AC:B6:70:47:B4"
    status: online
  contains:
    name:
      description: Its name.
      type: str
    address:
      description: Its address in the cluster; null where that is not known.
      type: str
    fingerprint:
      description:
        - SHA-256 fingerprint of its certificate, as the cluster has it. Null for a node that is removed, and in check
          mode for one that would join.
      type: str
    status:
      description: V(online), V(offline) or V(absent).
      type: str
cluster:
  description: The cluster as it is now, or would be; null where a node that stands alone was asked to remove another.
  returned: success
  type: dict
  sample:
    name: lab
    quorate: true
    nodes: [pve1, pve2]
  contains:
    name:
      description: Its name.
      type: str
    quorate:
      description: Whether it has a quorum.
      type: bool
    nodes:
      description: Names of its members.
      type: list
      elements: str
peer_fingerprint:
  description: Fingerprint of the certificate by which the peer was trusted.
  returned: when O(state=present)
  type: str
  sample: "A9:11:A9:B8:0C:D0:E7:36:B3:9E:50:E4:D7:F7:BD:A7:9A:7E:92:0E:0B:C4:1F:F1:72:3E:EA:4A:68:C2:8D:12"
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import membership
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.membership_plan import join_spec, remove_spec


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "peer": {
                "type": "dict",
                "options": {
                    "address": {"type": "str", "required": True},
                    "user": {"type": "str", "default": "root@pam"},
                    "password": {"type": "str", "required": True, "no_log": True},
                    "fingerprint": {"type": "str"},
                    "accept_fingerprint": {"type": "bool", "default": False},
                    "ca_path": {"type": "path"},
                    "links": {"type": "dict"},
                },
            },
            "cluster_name": {"type": "str"},
            "node": {"type": "str"},
            "links": {"type": "dict"},
            "votes": {"type": "int"},
            "nodeid": {"type": "int"},
            "force": {"type": "bool", "default": False},
            "quorum_timeout": {"type": "int", "default": 120},
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        connection = connection_from_params(module.params)
        if module.params["state"] == "present":
            wanted = join_spec(module.params, connection)
            result = membership.join(PveClient(connection), wanted, check_mode=module.check_mode)
        else:
            unwanted = remove_spec(module.params, connection)
            result = membership.remove(PveClient(connection), unwanted, check_mode=module.check_mode)
    except (Unable, ConnectionParamsError, PveError) as error:
        module.fail_json(msg=str(error))
    for warning in result.warnings:
        module.warn(warning)
    shown = {"peer_fingerprint": result.peer_fingerprint} if result.peer_fingerprint else {}
    module.exit_json(
        changed=result.plan.changed, diff=result.plan.diff(), node=result.node, cluster=result.cluster, **shown
    )


if __name__ == "__main__":
    main()
