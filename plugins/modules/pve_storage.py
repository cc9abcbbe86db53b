#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_storage
short_description: Define a storage of a Proxmox VE cluster
version_added: 0.2.0
description:
  - Makes a storage's definition what the task says, and waits until the storage is active on its nodes. What the task
    does not say is left alone.
  - The pool, volume group, directory or export itself has to be there. No data is made or destroyed.
  - What PVE cannot change in a definition, such as its type or an NFS server, is refused before anything is changed.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.full
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  name:
    description: Id of the storage.
    type: str
    required: true
  state:
    description:
      - V(absent) removes the definition and leaves the data alone. It is refused while a guest's configuration refers
        to the storage, on whichever node, and while that cannot be known, unless O(force=true).
    type: str
    choices: [present, absent]
    default: present
  type:
    description:
      - PVE's name of the backend. Options are here for V(dir), V(lvm), V(lvmthin), V(nfs), and V(zfspool); those of any
        other backend go to O(settings).
      - Needed for a storage that does not exist yet.
    type: str
  pool:
    description: Name of the ZFS pool or file system, or of another backend's pool. Cannot be changed for ZFS.
    type: str
  vgname:
    description: Name of the volume group. Cannot be changed.
    type: str
  thinpool:
    description: Name of the thin pool in O(vgname). Cannot be changed.
    type: str
  server:
    description: Address of the server, of NFS and of others that have one. Cannot be changed.
    type: str
  export:
    description: What the NFS server exports. Cannot be changed.
    type: str
  path:
    description:
      - The directory; with O(type=nfs) the mount point, which is C(/mnt/pve/) and the name unless given.
      - Cannot be changed.
    type: str
  options:
    description: Mount options of NFS, as in V(vers=4.2).
    type: str
  content:
    description:
      - What the storage may hold. The order does not matter.
      - An empty list sets it back to what the type holds by default.
    type: list
    elements: str
  nodes:
    description:
      - The nodes that the storage is for; they have to exist. The order does not matter.
      - An empty list makes it a storage of all nodes, which a new one is unless told.
      - To leave out a node that it is for now is refused while a guest there refers to it, unless O(force=true).
    type: list
    elements: str
  shared:
    description: Whether what is in the directory or volume group is the same on every node. PVE does not make it so.
    type: bool
  disable:
    description:
      - Whether the storage is out of use everywhere.
      - To put one out of use is refused while a guest refers to it, unless O(force=true).
    type: bool
  preallocation:
    description: How much of a disk image is allocated at once.
    type: str
    choices: ["off", metadata, falloc, full]
  mkdir:
    description: Whether the directory and those in it are made when they are missing.
    type: bool
  is_mountpoint:
    description: V(yes) or the path of a mount point, without which the storage is offline; V(no) for a plain directory.
    type: str
  sparse:
    description: Whether ZFS volumes are thin.
    type: bool
  blocksize:
    description: Block size of ZFS volumes, as in V(16k).
    type: str
  prune_backups:
    description:
      - "Which backups are kept, as in V({keep-daily: 7, keep-weekly: 4}). C(keep_daily) is as good, and so on."
      - An empty dictionary clears it.
    type: dict
  settings:
    description:
      - "Further properties of the definition by PVE's own names, as in V({bwlimit: migration=102400}). What is an
        option of its own is refused here."
      - An empty value clears a property.
    type: dict
  secrets:
    description:
      - Properties that PVE never shows again, C(password), C(keyring), C(encryption-key), C(master-pubkey).
      - Sent when the storage is defined.
    type: dict
  update_secrets:
    description: V(always) sends O(secrets) on each run, and says changed, for what is there cannot be compared.
    type: str
    choices: [always, on_create]
    default: on_create
  wait:
    description:
      - Whether to wait until the storage is active on O(nodes), or when they are not given on every node that it is for
        and that is online.
      - A disabled storage is not waited for.
    type: bool
    default: true
  wait_timeout:
    description: Seconds to wait.
    type: int
    default: 60
  force:
    description:
      - Whether to remove a definition that guests refer to, to disable it, or to take it off their nodes. Their disks
        stay where they are, out of their reach.
    type: bool
    default: false
seealso:
  - module: pvefleet.infra.pve_storage_info
notes:
  - Needs C(Datastore.Allocate) on C(/storage), and C(VM.Audit) on C(/vms) to remove a definition, to disable it, or to
    take it off a node without O(force=true).
  - Only the configuration that a guest has now, and what is pending in it, is looked at, not that of its snapshots.
"""

EXAMPLES = r"""
- name: An NFS export for one node
  pvefleet.infra.pve_storage:
    cluster: prod
    name: remote-poka
    type: nfs
    server: 192.168.3.50
    export: /poka
    content: [images, rootdir]
    nodes: [pve2]

- name: A ZFS pool of both nodes, with thin volumes
  pvefleet.infra.pve_storage:
    cluster: prod
    name: tank
    type: zfspool
    pool: tank/guests
    sparse: true
    nodes: [pve1, pve2]

- name: A Proxmox Backup Server, of whose options the module knows nothing
  pvefleet.infra.pve_storage:
    cluster: prod
    name: pbs
    type: pbs
    content: [backup]
    server: pbs.example.com
    settings:
      datastore: main
      username: fleet@pbs
      fingerprint: 09:3A:5C:D1:6B:5E:0C:4A:88:1D:77:94:F2:3B:60:AE:15:C8:29:E3:7F:D0:4B:96:A1:5D:82:FE:33:0B:C7:64
    secrets:
      password: "{{ lookup('ansible.builtin.env', 'PBS_PASSWORD') }}"

- name: For all nodes from now on
  pvefleet.infra.pve_storage:
    cluster: prod
    name: remote-poka
    nodes: []

- name: No longer a storage of the cluster; what is on it stays
  pvefleet.infra.pve_storage:
    cluster: prod
    name: remote-poka
    state: absent
"""

RETURN = r"""
storage:
  description: The storage as it is now, or would be; null when there is none.
  returned: success
  type: dict
  sample:
    name: remote-poka
    type: nfs
    content: [images, rootdir]
    nodes: [pve2]
    enabled: true
    shared: true
    settings: {server: 192.168.3.50, export: /poka, path: /mnt/pve/remote-poka}
    status:
      - {node: pve2, state: active, total: 107374182400, used: 1073741824, available: 106300440576}
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
      description: The other properties of its definition by PVE's names, as booleans or text.
      type: dict
    status:
      description: The nodes that were waited for; an empty list in check mode, and when O(wait=false).
      type: list
      elements: dict
      contains:
        node:
          description: Name of the node.
          type: str
        state:
          description: V(active), V(inactive), V(disabled); V(unknown) when the node is offline or did not answer.
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
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage import converge_storage
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage_plan import SECRETS, storage_spec

OPTIONS = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "type": {"type": "str"},
    "pool": {"type": "str"},
    "vgname": {"type": "str"},
    "thinpool": {"type": "str"},
    "server": {"type": "str"},
    "export": {"type": "str"},
    "path": {"type": "str"},
    "options": {"type": "str"},
    "content": {"type": "list", "elements": "str"},
    "nodes": {"type": "list", "elements": "str"},
    "shared": {"type": "bool"},
    "disable": {"type": "bool"},
    "preallocation": {"type": "str", "choices": ["off", "metadata", "falloc", "full"]},
    "mkdir": {"type": "bool"},
    "is_mountpoint": {"type": "str"},
    "sparse": {"type": "bool"},
    "blocksize": {"type": "str"},
    "prune_backups": {"type": "dict"},
    "settings": {"type": "dict"},
    "secrets": {"type": "dict", "no_log": True},
    "update_secrets": {"type": "str", "choices": ["always", "on_create"], "default": "on_create", "no_log": False},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 60},
    "force": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec={**connection_argument_spec(), **OPTIONS}, supports_check_mode=True)
    # A secret in the wrong place is refused, and still not shown.
    astray = {str(value) for key, value in (module.params["settings"] or {}).items() if key in SECRETS and value}
    module.no_log_values.update(astray)
    try:
        spec = storage_spec(module.params)
        client = PveClient(connection_from_params(module.params))
        result = converge_storage(client, spec, check_mode=module.check_mode)
    except (ConnectionParamsError, PveError, Unable) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=result.plan.changed, diff=result.plan.diff(), storage=result.storage)


if __name__ == "__main__":
    main()
