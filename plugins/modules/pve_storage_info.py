#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_storage_info
short_description: What storages a Proxmox VE cluster has
version_added: 0.2.0
description:
  - Returns the storage definitions that fit all that is asked for, with each node's state and space.
  - Without options these are all that the user may see.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.info
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  name:
    description: Id of the storage.
    type: str
  type:
    description: PVE's name of the backend, as in V(zfspool).
    type: str
  content:
    description: Only storages that may hold this, as in V(images).
    type: str
  node:
    description: Only storages that are for this node, and only their state there.
    type: str
seealso:
  - module: pvefleet.infra.pve_storage
notes:
  - Needs C(Datastore.Audit) on the storages; PVE leaves others out without a word.
"""

EXAMPLES = r"""
- name: Where can a disk be put on pve1?
  pvefleet.infra.pve_storage_info:
    cluster: prod
    node: pve1
    content: images
  register: stores

- name: The roomiest of them
  ansible.builtin.debug:
    msg: "{{ (stores.storages | sort(attribute='status.0.available') | last).name }}"
  when: stores.storages | length > 0

- name: Everything
  pvefleet.infra.pve_storage_info:
    cluster: prod
"""

RETURN = r"""
storages:
  description: The storages, sorted by name; an empty list when none fits.
  returned: success
  type: list
  elements: dict
  sample:
    - name: local-lvm
      type: lvmthin
      content: [images, rootdir]
      nodes: []
      enabled: true
      shared: false
      settings: {vgname: pve, thinpool: data}
      status:
        - {node: pve1, state: active, total: 107374182400, used: 1073741824, available: 106300440576}
        - {node: pve2, state: unknown, total: null, used: null, available: null}
  contains:
    name:
      description: Its id.
      type: str
    type:
      description: PVE's name of its backend.
      type: str
    content:
      description: What it may hold, sorted.
      type: list
      elements: str
    nodes:
      description: The nodes that it is for, sorted; an empty list when it is for all.
      type: list
      elements: str
    enabled:
      description: Whether it is in use.
      type: bool
    shared:
      description: Whether it is the same on every node.
      type: bool
    settings:
      description:
        - The other properties of its definition by PVE's names, as booleans or text.
        - PVE does not show passwords and keys.
      type: dict
    status:
      description: What each node that it is for has of it.
      type: list
      elements: dict
      contains:
        node:
          description: Name of the node.
          type: str
        state:
          description: V(active), V(inactive), V(disabled); V(unknown) on a node that is offline or did not answer.
          type: str
        total:
          description: Bytes in all; null unless it is active.
          type: int
        used:
          description: Bytes in use; null unless it is active.
          type: int
        available:
          description: Bytes that are free; null unless it is active.
          type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage import list_storages

FILTERS = ("name", "type", "content", "node")


def main() -> None:
    module = AnsibleModule(
        argument_spec={**connection_argument_spec(), **{name: {"type": "str"} for name in FILTERS}},
        supports_check_mode=True,
    )
    name, kind, content, node = (module.params[option] for option in FILTERS)
    try:
        client = PveClient(connection_from_params(module.params))
        storages = list_storages(client, name=name, kind=kind, content=content, node=node)
    except (ConnectionParamsError, PveError, Unable) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, storages=storages)


if __name__ == "__main__":
    main()
