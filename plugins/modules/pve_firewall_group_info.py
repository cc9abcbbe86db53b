#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_firewall_group_info
short_description: Security groups of Proxmox VE's firewall, and who uses them
version_added: 0.2.0
description:
  - Returns one security group or all of them, with their rules and with everything that refers to them.
  - The rules of every guest are read for that, one call each, some at a time. PVE leaves out guests that the login may
    not see; unless it has C(VM.Audit) on C(/vms) there is a warning that the members may not be all.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.info
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  name:
    description: Name of the group; all groups unless given.
    type: str
seealso:
  - module: pvefleet.infra.pve_firewall_group
"""

EXAMPLES = r"""
- name: One group
  pvefleet.infra.pve_firewall_group_info:
    cluster: prod
    name: web
  register: web

- name: The servers that it applies to
  ansible.builtin.debug:
    msg: "{{ web.groups | map(attribute='members') | flatten | map(attribute='name') }}"

- name: All groups of the cluster
  pvefleet.infra.pve_firewall_group_info:
    cluster: prod
"""

RETURN = r"""
groups:
  description: The groups, sorted by name; an empty list when there is none of that name.
  returned: success
  type: list
  elements: dict
  sample:
    - name: web
      comment: web servers
      digest: 96dc91525f0d776bc3aaf471d59807d375dcb01e
      rules:
        - {pos: 0, type: in, action: ACCEPT, proto: tcp, dport: "80", source: 10.0.0.0/8, comment: http, enabled: true}
      members:
        - {vmid: 101, name: web-01, node: pve1, type: qemu, enabled: true}
      used_by: [the datacenter]
  contains:
    name:
      description: Its name.
      type: str
    comment:
      description: What it is for.
      type: str
    digest:
      description: PVE's digest of its rules; null without rules.
      type: str
    rules:
      description: Its rules in order, as the options of M(pvefleet.infra.pve_firewall_group) with their positions.
      type: list
      elements: dict
    members:
      description:
        - The guests with a rule that refers to it; C(type) is V(qemu) or V(lxc), C(enabled) whether such a rule is in
          effect.
      type: list
      elements: dict
    used_by:
      description: What else has a rule that refers to it, as in V(node pve1).
      type: list
      elements: str
offline_nodes:
  description: Nodes that are offline, of which it is not certain that all uses are known.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall import read_groups
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.sight import sees_all


def main() -> None:
    module = AnsibleModule(
        argument_spec={**connection_argument_spec(), "name": {"type": "str"}},
        supports_check_mode=True,
    )
    try:
        client = PveClient(connection_from_params(module.params))
        groups, offline = read_groups(client, module.params["name"])
        whole = not groups or sees_all(client, "/vms", "VM.Audit")
    except (Unable, ConnectionParamsError, PveError) as error:
        module.fail_json(msg=str(error))
    if not whole:
        module.warn(
            f"{client.connection.user} needs VM.Audit on /vms to see every guest: the members may not be all there are"
        )
    module.exit_json(changed=False, groups=groups, offline_nodes=offline)


if __name__ == "__main__":
    main()
