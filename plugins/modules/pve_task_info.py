#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_task_info
short_description: How a task of Proxmox VE is doing, and how it ended
version_added: 0.2.0
description:
  - Waits for a task of which the UPID is known, and returns how it ended and the end of its log.
  - A task that failed is a result and no error. Use C(failed_when) where it shall be one.
  - Only with O(stop=true) is anything changed.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.full
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  upid:
    description: The task's id. Its node is asked, which is part of it.
    type: str
    required: true
  wait:
    description: Whether to wait for the task's end.
    type: bool
    default: true
  timeout:
    description: Seconds to wait. It is an error when the task runs for longer; it goes on.
    type: int
    default: 600
  log_lines:
    description: How many of the log's last lines to return.
    type: int
    default: 20
  stop:
    description:
      - Whether to stop the task if it runs. What it has done until then stays as it is.
      - Nothing is stopped in check mode, nor waited for.
    type: bool
    default: false
notes:
  - Tasks of other users and tokens need C(Sys.Audit) on the node, and C(Sys.Modify) to be stopped.
"""

EXAMPLES = r"""
- name: A backup that something else has started
  pvefleet.infra.pve_task_info:
    cluster: prod
    upid: "{{ backup_upid }}"
    timeout: 3600
  register: backup
  failed_when: backup.task.status == 'error'

- name: What it is doing now
  pvefleet.infra.pve_task_info:
    cluster: prod
    upid: "{{ backup_upid }}"
    wait: false
    log_lines: 5

- name: Enough of it
  pvefleet.infra.pve_task_info:
    cluster: prod
    upid: "{{ backup_upid }}"
    stop: true
"""

RETURN = r"""
task:
  description: The task as it is now.
  returned: success
  type: dict
  sample:
    upid: "UPID:pve1:0002A5F1:01C9C4A2:6926D1F0:vzdump:101:root@pam:"
    node: pve1
    type: vzdump
    id: "101"
    user: root@pam
    status: ok
    exitstatus: OK
    warnings: 0
    starttime: "2025-11-26T10:08:48Z"
    endtime: "2025-11-26T10:09:31Z"
    log: ["INFO: Finished Backup of VM 101 (00:00:43)", "INFO: Backup job finished successfully", "TASK OK"]
  contains:
    upid:
      description: Its id.
      type: str
    node:
      description: The node that it runs on.
      type: str
    type:
      description: PVE's name for what it does.
      type: str
    id:
      description: What it does it to, most often a guest's vmid; empty for some types.
      type: str
    user:
      description: Who started it, with the token's name after C(!) if it was one.
      type: str
    status:
      description: V(running), V(ok), V(warnings), or V(error).
      type: str
    exitstatus:
      description: PVE's own words for how it ended; null while it runs.
      type: str
    warnings:
      description: How many warnings it ended with.
      type: int
    starttime:
      description: When it began, by RFC 3339 in UTC.
      type: str
    endtime:
      description: When it ended; null while it runs, and when the node's list of tasks does not have it any more.
      type: str
    log:
      description: The last lines of its log.
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
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.task import TaskSpec, task_info

OPTIONS = {
    "upid": {"type": "str", "required": True},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 600},
    "log_lines": {"type": "int", "default": 20},
    "stop": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec={**connection_argument_spec(), **OPTIONS}, supports_check_mode=True)
    spec = TaskSpec(**{name: module.params[name] for name in OPTIONS})
    try:
        client = PveClient(connection_from_params(module.params))
        result = task_info(client, spec, check_mode=module.check_mode)
    except (ConnectionParamsError, PveError, Unable) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=result.plan.changed, diff=result.plan.diff(), task=result.task)


if __name__ == "__main__":
    main()
