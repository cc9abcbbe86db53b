#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_fleet
short_description: Make many virtual machines of Proxmox VE what they should be, at once
version_added: 0.2.0
description:
  - Does for a list of servers what M(pvefleet.infra.proxmox_server) does for one, several of them at a time.
  - The cluster is looked at once. A server that is as it should be costs one call more.
  - A server that fails does not stop the others. The task fails in the end, and RV(servers) tells of
    each what became of it. When nothing can work any more, as without quorum, the rest is not tried.
  - A task that was cut off is finished by the next run.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.fleet
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.full
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  tag:
    description: A tag that marks the servers of this fleet. They all get it, beside their other tags.
    type: str
  prune:
    description:
      - Whether servers that have the fleet's O(tag) and are not listed are removed, with their disks, running or not.
      - One on a node that is offline fails, and is removed by a later run. One that the user may not see stays.
      - An empty list of servers is refused then.
    type: bool
    default: false
  workers:
    description: How many servers are worked on at a time, from 1 to 32.
    type: int
    default: 16
  per_node:
    description: How many tasks of PVE may be under way at a time on one node.
    type: int
    default: 16
  per_storage:
    description: How many tasks of PVE that make volumes may be under way at a time on one storage.
    type: int
    default: 8
seealso:
  - module: pvefleet.infra.proxmox_server
  - module: pvefleet.infra.proxmox_server_info
"""

EXAMPLES = r"""
- name: Three servers from one template, one of them with more memory
  pvefleet.infra.proxmox_fleet:
    cluster: prod
    defaults:
      clone: {template: debian-12-cloud}
      cores: 2
      memory: 1024
      cloud_init:
        user: ops
      state: started
    servers:
      - name: f-00
        cloud_init: {ipconfig: {net0: "ip=10.0.0.10/24,gw=10.0.0.1"}}
      - name: f-01
        cloud_init: {ipconfig: {net0: "ip=10.0.0.11/24,gw=10.0.0.1"}}
      - name: f-02
        cloud_init: {ipconfig: {net0: "ip=10.0.0.12/24,gw=10.0.0.1"}}
        memory: 2048
    tag: fleet-f

- name: One is enough
  pvefleet.infra.proxmox_fleet:
    cluster: prod
    servers:
      - name: f-00
    tag: fleet-f
    prune: true
"""

RETURN = r"""
servers:
  description: What became of each server, in the order listed, then of the pruned ones. Failed tasks have it, too.
  returned: when the cluster could be looked at
  type: list
  elements: dict
  sample:
    - name: f-00
      vmid: 101
      node: pve1
      status: running
      ip_addresses: ["10.0.0.10"]
      pending: []
      changed: true
      failed: false
      msg: null
  contains:
    name:
      description: Its name.
      type: str
    vmid:
      description: Its id; null in check mode for a server that would be created.
      type: int
    node:
      description: Its node.
      type: str
    status:
      description: V(running), V(stopped) or V(absent); null when it failed.
      type: str
    ip_addresses:
      description: As M(pvefleet.infra.proxmox_server) returns them.
      type: list
      elements: str
    pending:
      description:
        - Options that the running server does not have yet.
        - Of a server that was as it should be, cloud-init's are among them only when its C(power_cycle) is
          V(when_needed).
      type: list
      elements: str
    changed:
      description: Whether anything was changed, or would be. Of a failed server, whether anything may have been.
      type: bool
    failed:
      description: Whether it is not what it should be.
      type: bool
    msg:
      description: Why it failed.
      type: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.fleet import Outcome, converge_fleet
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.fleet_spec import FLEET_OPTIONS, fleet_spec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import SpecError

# The message of a failed task names this many of the servers.
NAMED = 5


def main() -> None:
    module = AnsibleModule(argument_spec={**connection_argument_spec(), **FLEET_OPTIONS}, supports_check_mode=True)
    try:
        fleet = fleet_spec(module.params)
        client = PveClient(connection_from_params(module.params))
        outcomes = converge_fleet(client, fleet, check_mode=module.check_mode)
    except (SpecError, ConnectionParamsError, PveError, Unable) as error:
        module.fail_json(msg=str(error))
    plans = [outcome.plan for outcome in outcomes]
    result = {
        "changed": any(outcome.changed for outcome in outcomes),
        "diff": [plan.diff() for plan in plans if plan.changed],
        "servers": [told(outcome) for outcome in outcomes],
    }
    failures = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
    if failures:
        more = f"; and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
        reasons = "; ".join(failures[:NAMED])
        module.fail_json(msg=f"{len(failures)} of {len(outcomes)} servers failed: {reasons}{more}", **result)
    module.exit_json(**result)


def told(outcome: Outcome) -> dict[str, Any]:
    """One server's part of the result."""
    spec, result = outcome.spec, outcome.result
    guest = result.guest if result else None
    return {
        "name": guest.name if guest else spec.name,
        "vmid": guest.vmid if guest else spec.vmid,
        "node": guest.node if guest else None,
        "status": result.status if result else None,
        "ip_addresses": list(result.ip_addresses) if result else [],
        "pending": list(result.pending) if result else [],
        "changed": outcome.changed,
        "failed": outcome.error is not None,
        "msg": None if outcome.error is None else str(outcome.error),
    }


if __name__ == "__main__":
    main()
