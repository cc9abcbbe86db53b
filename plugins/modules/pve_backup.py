#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_backup
short_description: Take, restore, protect and remove backups of virtual machines of Proxmox VE
version_added: 0.2.0
description:
  - Takes a backup of a server unless there is one that will do, restores a server from one, keeps notes and protection
    of one, and removes old ones.
  - A backup is named by its O(volid), or chosen among a server's by O(notes) and age.
  - Storages, servers and vmids are checked before anything is changed. A server that something else works on, such as
    another backup, is waited for.
  - The backups of a server that is gone are still found by its vmid. Those of a container that had the vmid are no
    backups of the server.
  - PVE shows a user no backups without C(VM.Backup) on the server and C(Datastore.AllocateSpace) on the storage, or
    else C(Datastore.Allocate) on it. Nothing is called absent, then; the module fails and says what is missing.
    Beside storages that can be seen, one that is hidden from the user is not noticed.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.actiongroup_proxmox
attributes:
  check_mode:
    support: full
    details:
      - Which old backups O(prune_backups) removes is decided by PVE, and not foretold.
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - O(state=present) without O(volid), O(notes) and O(max_age) takes a backup each time, and so does O(max_age=0),
        for nothing tells the wanted one from others.
      - O(state=restored) with O(force=true) restores each time.
options:
  server:
    description: Name of the server, or its vmid.
    type: str
  vmid:
    description: Id of the server, which need not exist any more.
    type: int
  node:
    description:
      - Node whose storages are looked at; all nodes unless given.
      - A new server is restored to it. Without it, that is the node that has the backup, and with a shared storage the
        first one that is online.
    type: str
  storage:
    description:
      - Storage of the backups.
      - A backup is taken to it. It can be left out where the server's node has only one storage that takes backups.
    type: str
  volid:
    description: Volume id of one backup, as in V(local:backup/vzdump-qemu-101-2026_01_31-02_00_00.vma.zst).
    type: str
  notes:
    description:
      - Notes of the backup, one line. With O(state=present), a new backup gets them, and one that has them will do.
      - With O(volid) and O(state=present), what its notes are to be; an empty text removes them.
      - With other states, only backups with exactly these notes are meant.
    type: str
  max_age:
    description:
      - How old a backup may be at most, as in V(90m), V(12h), V(1d) or V(2w), by the clock of its node.
      - With O(state=present), nothing is done when there is one that is younger. V(0) takes one each time.
      - For a backup in every run of a timer, give less than the time between two runs, such as V(20h) for a daily one.
        With V(1d), the backup of yesterday's run, which began a bit later than its timer, is still younger than a day,
        and every other night is left out.
    type: str
  older_than:
    description: How old a backup must be for O(state=absent) to remove it, like O(max_age).
    type: str
  mode:
    description:
      - V(snapshot) leaves a running server running, V(suspend) suspends it for a moment, V(stop) shuts it down and
        starts it again. PVE's own default unless given.
      - Only for a backup that is taken.
    type: str
    choices: [snapshot, suspend, stop]
  compress:
    description:
      - Compression, V(0) for none; V(1) is PVE's synonym of V(lzo). PVE's own default unless given.
      - Only for a backup that is taken.
    type: str
    choices: ["0", "1", gzip, lzo, zstd]
  prune_backups:
    description:
      - Which of the server's backups on the storage are kept after one was taken. The others are removed, but for
        protected ones.
      - Without it the retention of the storage's own configuration applies.
      - Needs C(Datastore.Allocate) on the storage.
      - What PVE itself writes as C(keep-last) is C(keep_last) here, and so with the others.
    type: dict
    suboptions:
      keep_all:
        description: Keep all. Excludes the others.
        type: bool
      keep_last:
        description: Keep so many of the newest.
        type: int
      keep_hourly:
        description: Keep one of each of so many hours.
        type: int
      keep_daily:
        description: Keep one of each of so many days.
        type: int
      keep_weekly:
        description: Keep one of each of so many weeks.
        type: int
      keep_monthly:
        description: Keep one of each of so many months.
        type: int
      keep_yearly:
        description: Keep one of each of so many years.
        type: int
  protected:
    description:
      - Whether PVE refuses to remove it. Left alone unless given.
      - Needs C(Datastore.Allocate) on the storage.
    type: bool
  target_vmid:
    description: Into which vmid to restore; that of the backup's server unless given.
    type: int
  target_name:
    description:
      - Name of the restored server; that of the backup's server unless given.
      - A copy beside its original is better given one, for otherwise both are found by the same name.
    type: str
  target_storage:
    description: Storage for the restored disks; those that they were on unless given.
    type: str
  start:
    description: Whether the restored server is started.
    type: bool
    default: false
  force:
    description:
      - Whether a restore may overwrite a server that has the vmid. It is stopped hard before, and its disks are gone.
      - Without it, an existing server is refused, unless it is this very backup, restored; then there is nothing to do.
        It is when the last restore into the vmid was of this backup, by the task logs of its node, and it has the UUID
        of the server in the backup, or with O(unique) another one and the name.
      - That takes C(Sys.Audit) on the node, to see everybody's tasks, and logs that PVE still keeps. Where it cannot be
        known, the server is refused.
    type: bool
    default: false
  unique:
    description: Whether a restored server gets new MAC addresses, so that it can run beside its original.
    type: bool
    default: false
  timeout:
    description: Seconds that taking or restoring one backup may take, waiting for others included.
    type: int
    default: 3600
  state:
    description:
      - V(present) is there, with these O(notes) and this protection, taken now unless one will do.
      - V(restored) makes a server from it, from the newest one that fits unless O(volid) is given.
      - V(absent) is removed, by O(volid), or all that O(notes) and O(older_than) mean. Protected ones are left, and one
        that is named by O(volid) is refused.
    type: str
    choices: [present, restored, absent]
    default: present
seealso:
  - module: pvefleet.infra.pve_backup_info
  - module: pvefleet.infra.proxmox_server
"""

EXAMPLES = r"""
- name: A backup in each nightly run, and of no more than seven days
  pvefleet.infra.pve_backup:
    cluster: prod
    server: web-01
    storage: local
    mode: snapshot
    compress: zstd
    notes: nightly
    max_age: 20h
    prune_backups:
      keep_daily: 7

- name: One that stays, before something dangerous
  pvefleet.infra.pve_backup:
    cluster: prod
    server: web-01
    storage: local
    notes: before the upgrade
    protected: true

- name: A copy of the server as it was then, beside it
  pvefleet.infra.pve_backup:
    cluster: prod
    server: web-01
    notes: before the upgrade
    target_vmid: 151
    target_name: web-01-copy
    unique: true
    start: true
    state: restored

- name: The server itself as it was last night, in place of what it is now
  pvefleet.infra.pve_backup:
    cluster: prod
    server: web-01
    notes: nightly
    force: true
    start: true
    state: restored

- name: No backups of more than 30 days
  pvefleet.infra.pve_backup:
    cluster: prod
    server: web-01
    older_than: 30d
    state: absent
"""

RETURN = r"""
backup:
  description:
    - The backup that is there, was taken or was restored.
    - Null when one would be taken in check mode, and with O(state=absent).
  returned: success
  type: dict
  sample:
    volid: local:backup/vzdump-qemu-101-2026_01_31-02_00_00.vma.zst
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
removed:
  description: The backups that were removed, by O(state=absent) or by retention, as RV(backup) has one.
  returned: success
  type: list
  elements: dict
  sample: []
server:
  description: What was restored.
  returned: with O(state=restored)
  type: dict
  sample: {vmid: 151, node: pve1, status: running}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup import converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_plan import BACKUP_OPTIONS, backup_spec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.backup_restore import Halfway
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable


def main() -> None:
    module = AnsibleModule(
        argument_spec={**connection_argument_spec(), **BACKUP_OPTIONS},
        required_one_of=[("server", "vmid", "volid")],
        supports_check_mode=True,
    )
    try:
        spec = backup_spec(module.params)
        client = PveClient(connection_from_params(module.params))
        result = converge(client, spec, check_mode=module.check_mode)
    except Halfway as error:
        module.fail_json(msg=str(error), changed=True)
    except (Unable, ConnectionParamsError, PveError) as error:
        module.fail_json(msg=str(error))
    for line in result.warnings:
        module.warn(line)
    found = {"server": dict(result.server)} if result.server else {}
    module.exit_json(
        changed=result.plan.changed,
        diff=result.plan.diff(),
        backup=result.backup.describe() if result.backup else None,
        removed=[backup.describe() for backup in result.removed],
        **found,
    )


if __name__ == "__main__":
    main()
