#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_server
short_description: Make a virtual machine of Proxmox VE what it should be
version_added: 0.1.0
description:
  - Creates a server from a template or empty, and makes its CPU, memory, disks, network devices, cloud-init settings,
    tags, notes and power state what the task says. What the task does not say is left alone.
  - Whatever can be known beforehand to fail is refused before anything is changed.
  - A server that was being created when the run was cut off is finished by the next run.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.server
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.full
  - pvefleet.infra.attributes.actiongroup_proxmox
seealso:
  - module: pvefleet.infra.proxmox_server_info
  - module: pvefleet.infra.proxmox_cluster
"""

EXAMPLES = r"""
- name: A web server from a template, with a second disk and a second network device
  pvefleet.infra.proxmox_server:
    cluster: prod
    name: web-01
    clone:
      template: debian-12-cloud
    cores: 2
    memory: 2048
    disks:
      scsi0: {size: 10G}
      scsi1: {storage: local-lvm, size: 4G, ssd: true}
    nics:
      net0: {bridge: vmbr0}
      net1: {bridge: vmbr0, vlan: 20, firewall: true}
    cloud_init:
      user: ops
      ssh_keys:
        - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0kLTaLUO0yuy6vd0Mqdz9DB9aHg5Zc6zTbkTqg4qPe ops@example.com
      ipconfig:
        net0: ip=10.0.0.5/24,gw=10.0.0.1
      nameservers: [10.0.0.1]
    tags: [blue, web]
    role: web
    state: started

- name: More memory, with a restart if it needs one
  pvefleet.infra.proxmox_server:
    cluster: prod
    name: web-01
    memory: 4096
    power_cycle: when_needed

- name: Gone, disks and all
  pvefleet.infra.proxmox_server:
    cluster: prod
    name: web-01
    state: absent
"""

RETURN = r"""
server:
  description: The server as it is now, or would be; with V(absent) as its status once it is gone.
  returned: success
  type: dict
  sample:
    vmid: 101
    name: web-01
    node: pve1
    status: running
    ip_addresses: ["10.0.0.5"]
    pending: []
  contains:
    vmid:
      description: Its id; null in check mode for a server that would be created.
      type: int
    name:
      description: Its name.
      type: str
    node:
      description: Its node.
      type: str
    status:
      description: V(running), V(stopped) or V(absent).
      type: str
    ip_addresses:
      description: What the guest agent told when O(wait_for_address=true), else the static addresses of cloud-init.
      type: list
      elements: str
    pending:
      description:
        - Options that the running server does not have yet.
        - Cloud-init's options are among them until its next start.
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
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import ServerError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_converge import converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import (
    SERVER_OPTIONS,
    SpecError,
    server_spec,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**connection_argument_spec(), **SERVER_OPTIONS},
        required_one_of=[("name", "vmid")],
        supports_check_mode=True,
    )
    try:
        spec = server_spec(module.params)
        client = PveClient(connection_from_params(module.params))
        result = converge(client, spec, check_mode=module.check_mode)
    except (SpecError, ConnectionParamsError, PveError, ServerError) as error:
        module.fail_json(msg=str(error))
    guest = result.guest
    server = {
        "vmid": guest.vmid if guest else spec.vmid,
        "name": guest.name if guest else spec.name,
        "node": guest.node if guest else None,
        "status": result.status,
        "ip_addresses": list(result.ip_addresses),
        "pending": list(result.pending),
    }
    module.exit_json(changed=result.plan.changed, diff=result.plan.diff(), server=server)


if __name__ == "__main__":
    main()
