#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_backup_info
short_description: Which backups Proxmox VE has
version_added: 0.2.0
description:
  - Lists the backups of one server, or of all virtual machines and containers, the newest first.
  - What is stored on a node that is offline or in trouble, or on a storage that is not active, cannot be seen; a
    warning says so.
  - PVE shows a user no backups without C(VM.Backup) on their server and C(Datastore.AllocateSpace) on the storage, or
    else C(Datastore.Allocate) on it. A warning tells what is missing. Beside storages that can be seen, one that is
    hidden from the user is not noticed.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.info
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  server:
    description: Name of the server, or its vmid.
    type: str
  vmid:
    description:
      - Id of the server, which need not exist any more.
      - Without O(server), the backups of a container that has or had this id are listed, too.
    type: int
  node:
    description: Only what this node has on its storages, shared ones included.
    type: str
  storage:
    description: Only what is on this storage.
    type: str
  notes:
    description: Only those with exactly these notes.
    type: str
  max_age:
    description: Only those that are younger, as in V(90m), V(12h), V(1d) or V(2w), by the clock of their node.
    type: str
  older_than:
    description: Only those that are older, like O(max_age).
    type: str
seealso:
  - module: pvefleet.infra.pve_backup
"""

EXAMPLES = r"""
- name: The backups of a server
  pvefleet.infra.pve_backup_info:
    cluster: prod
    server: web-01
  register: found

- name: When the newest was taken
  ansible.builtin.debug:
    msg: "{{ found.backups | map(attribute='ctime') | first | default('never') }}"

- name: All that are older than a month, on all storages
  pvefleet.infra.pve_backup_info:
    cluster: prod
    older_than: 30d
"""

RETURN = r"""
backups:
  description: The backups, the newest first.
  returned: success
  type: list
  elements: dict
  sample:
    - volid: local:backup/vzdump-qemu-101-2026_01_31-02_00_00.vma.zst
      node: pve1
      storage: local
      vmid: 101
      ctime: "2026-01-31T02:00:00Z"
      size: 966368665
      notes: nightly
      protected: false
      format: vma.zst
  contains:
    volid:
      description: Its volume id.
      type: str
    node:
      description: A node on which it can be read.
      type: str
    storage:
      description: Its storage.
      type: str
    vmid:
      description: The vmid of its server.
      type: int
    ctime:
      description: When it was taken, in UTC.
      type: str
    size:
      description: Its size in bytes.
      type: int
    notes:
      description: The first line of its notes, empty without any.
      type: str
    protected:
      description: Whether PVE refuses to remove it.
      type: bool
    format:
      description: Its format.
      type: str
    verification:
      description: How its last verification on a Proxmox Backup Server ended.
      returned: when PVE tells one
      type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_look import list_backups
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_plan import SELECTION_OPTIONS, selection
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable


def main() -> None:
    module = AnsibleModule(
        argument_spec={**connection_argument_spec(), **SELECTION_OPTIONS},
        supports_check_mode=True,
    )
    try:
        chosen = selection(module.params)
        client = PveClient(connection_from_params(module.params))
        backups, unseen = list_backups(client, chosen)
    except (Unable, ConnectionParamsError, PveError) as error:
        module.fail_json(msg=str(error))
    for what in unseen:
        module.warn(f"{what}, so that backups may be missing here")
    module.exit_json(changed=False, backups=[backup.describe() for backup in backups])


if __name__ == "__main__":
    main()
