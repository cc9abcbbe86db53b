#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_server_info
short_description: What virtual machines of Proxmox VE are like
version_added: 0.1.0
description:
  - Returns one server, found by its name or vmid, or all servers of a cluster.
  - Without O(name) and O(vmid) one call lists all of them, without their configuration and addresses.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.info
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  name:
    description: Name of the server. It is an error when several have it.
    type: str
  vmid:
    description: Id of the server.
    type: int
seealso:
  - module: pvefleet.infra.proxmox_server
"""

EXAMPLES = r"""
- name: One server
  pvefleet.infra.proxmox_server_info:
    cluster: prod
    name: web-01
  register: web

- name: Its address
  ansible.builtin.debug:
    msg: "{{ web.servers | map(attribute='ip_addresses') | flatten }}"

- name: All servers of the cluster
  pvefleet.infra.proxmox_server_info:
    cluster: prod
"""

RETURN = r"""
servers:
  description: The servers, sorted by vmid; an empty list when there is none with that name or vmid.
  returned: success
  type: list
  elements: dict
  sample:
    - vmid: 101
      name: web-01
      node: pve1
      status: running
      template: false
      pool:
      tags: [role-web]
      config: {cores: 2, memory: "2048", net0: "virtio=BC:24:11:2E:C4:5F,bridge=vmbr0"}
      pending: []
      ip_addresses: ["10.0.0.5"]
  contains:
    vmid:
      description: Its id.
      type: int
    name:
      description: Its name. In a listing PVE shows a new one up to 11 seconds late, and null before.
      type: str
    node:
      description: Its node.
      type: str
    status:
      description: V(running), V(stopped); in a listing up to 10 seconds late, and V(unknown) at first.
      type: str
    template:
      description: Whether it is a template.
      type: bool
    pool:
      description: Its resource pool, if it is in one.
      type: str
    tags:
      description: Its tags, sorted.
      type: list
      elements: str
    config:
      description: Its configuration as PVE has it, with what is pending. Only for a single server.
      type: dict
    pending:
      description: Options whose running value differs. Only for a single server.
      type: list
      elements: str
    ip_addresses:
      description: What the guest agent tells, else the static addresses of cloud-init. Only for a single server.
      type: list
      elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.resources import Resources
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import (
    ServerError,
    describe,
    find,
    ip_addresses,
    list_servers,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**connection_argument_spec(), "name": {"type": "str"}, "vmid": {"type": "int"}},
        supports_check_mode=True,
    )
    name, vmid = module.params["name"], module.params["vmid"]
    try:
        client = PveClient(connection_from_params(module.params))
        resources = Resources.read(client)
        if name is None and vmid is None:
            servers = list_servers(resources)
        else:
            guest = find(client, resources, name=name, vmid=vmid)
            matches = guest is not None and name in (None, guest.name)
            servers = [describe(guest, ip_addresses(client, guest))] if guest and matches else []
    except (ConnectionParamsError, PveError, ServerError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, servers=servers)


if __name__ == "__main__":
    main()
