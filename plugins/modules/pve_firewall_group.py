#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pve_firewall_group
short_description: Manage a security group of Proxmox VE's firewall
version_added: 0.2.0
description:
  - Makes the rules of a security group what the task says, in that order, and lets the group apply to servers.
  - Rules are compared by what they say, not by their position. As few calls as possible are made, rules that are right
    stay where they are, and nothing is written over what somebody else changed meanwhile.
  - What the task does not say is left alone. The datacenter's firewall is never turned on by this module, for that can
    lock everybody out; as long as it is off there is a warning.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.full
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  name:
    description: Name of the group, 2 to 18 letters, digits, hyphens and underscores, a letter first.
    type: str
    required: true
  rename_from:
    description:
      - A group of this name gets O(name). Rules that refer to it are changed by PVE.
      - It is an error when there is neither that one nor O(name), and when there are both.
    type: str
  create:
    description: Whether a group that does not exist is created. If not, that is an error.
    type: bool
    default: true
  comment:
    description: What the group is for, one line. Empty removes it.
    type: str
  rules:
    description:
      - All rules of the group, in the order in which they apply. An empty list removes all. Not managed unless given.
      - A rule that is given without an option that it has now loses it.
      - The rules are in effect between the calls, too. They are put right from the last to the first; what is
        superfluous goes last. PVE makes every new rule at the top; one that belongs further down is there for the time
        of one call, and then moved to its place at once.
      - PVE does not let a rule of a group name a network device; see O(interface).
    type: list
    elements: dict
    suboptions:
      action:
        description: What happens to what the rule fits.
        type: str
        required: true
        choices: [ACCEPT, DROP, REJECT]
      type:
        description: Direction, as the server sees it. V(forward) needs PVE 8.3 or later.
        type: str
        default: in
        choices: [in, out, forward]
      macro:
        description: One of PVE's macros, as in V(SSH), instead of O(rules[].proto) and ports.
        type: str
      proto:
        description: Protocol by name or number, as in V(tcp).
        type: str
      source:
        description: >-
          Addresses or networks separated by commas, a range as in V(10.0.0.5-10.0.0.9), an alias as in V(office) or
          V(dc/office), or an IP set as in V(+admins).
        type: str
      dest:
        description: Where to, written as O(rules[].source).
        type: str
      sport:
        description: Source ports, written as O(rules[].dport).
        type: str
      dport:
        description: Ports, ranges and service names separated by commas, as in V(80,443,8000:8080).
        type: str
      icmp_type:
        description: Type of ICMP, as in V(echo-request). Needs an ICMP protocol in O(rules[].proto).
        type: str
      log:
        description: Level at which the rule logs; not at all unless given.
        type: str
        choices: [emerg, alert, crit, err, warning, notice, info, debug, nolog]
      comment:
        description: What the rule is for, one line.
        type: str
      enabled:
        description: Whether the rule is in effect. PVE's own default is that a new rule is not.
        type: bool
        default: true
  members:
    description:
      - Servers that the group applies to, by name or vmid. Each gets an enabled rule that refers to the group.
      - Other servers keep it unless O(members_exclusive=true).
    type: list
    elements: str
  members_exclusive:
    description: Whether the group is taken off every guest that is not in O(members), containers among them.
    type: bool
    default: false
  remove_members:
    description: Servers that the group is taken off, by name or vmid. A server that does not exist is no error.
    type: list
    elements: str
  interface:
    description:
      - Network device of the members that the group applies to, as in V(net0). All of them unless given; where a member
        has the group on another one, that is only changed when this is given.
    type: str
  position:
    description: Where the rule goes that a new member gets, above or below the rules it has. It is not moved later.
    type: str
    choices: [top, bottom]
    default: top
  enable_guest_firewall:
    description:
      - Whether to turn on the firewall of the members, and of their network devices (of O(interface) only, if given).
        Without both no rule has an effect.
      - A running server takes it at once, unless its option C(hotplug) lacks V(network). Then its network devices go on
        without a firewall until it is stopped and started; there is a warning, and they are in
        RV(group.members[].pending).
      - A server's firewall drops whatever comes in and no rule allows, unless its policy says otherwise.
      - V(false) leaves both as they are.
    type: bool
    default: true
  detach:
    description:
      - With O(state=absent), whether to take the group off everything that uses it before. Without it that is an
        error, which names the users.
    type: bool
    default: false
  state:
    description:
      - V(absent) removes the group and its rules. While a node is offline it is refused, for what is there cannot be
        asked whether it uses the group. Of the other options it takes O(detach) only.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: pvefleet.infra.pve_firewall_group_info
"""

EXAMPLES = r"""
- name: Web servers
  pvefleet.infra.pve_firewall_group:
    cluster: prod
    name: web
    comment: web servers
    rules:
      - {action: ACCEPT, type: in, proto: tcp, dport: "80,443", comment: web}
      - {action: ACCEPT, macro: SSH, source: 10.0.0.0/8}
      - {action: DROP, log: info}
    members: [web-01, web-02]

- name: One server less
  pvefleet.infra.pve_firewall_group:
    cluster: prod
    name: web
    create: false
    remove_members: [web-02]

- name: Gone, and off everything that uses it
  pvefleet.infra.pve_firewall_group:
    cluster: prod
    name: web
    state: absent
    detach: true
"""

RETURN = r"""
group:
  description: The group as it is now, or would be.
  returned: success
  type: dict
  sample:
    name: web
    state: present
    comment: web servers
    rules:
      - {pos: 0, type: in, action: ACCEPT, proto: tcp, dport: "80,443", comment: web, enabled: true}
    members:
      - {vmid: 101, name: web-01, node: pve1, pending: []}
  contains:
    name:
      description: Its name.
      type: str
    state:
      description: V(present) or V(absent).
      type: str
    comment:
      description: What it is for.
      type: str
    rules:
      description: Its rules in order, as O(rules) with their positions; without what a rule does not have.
      type: list
      elements: dict
    members:
      description: The servers of O(members). M(pvefleet.infra.pve_firewall_group_info) returns all that use it.
      type: list
      elements: dict
      contains:
        vmid:
          description: Its id.
          type: int
        name:
          description: Its name.
          type: str
        node:
          description: Its node.
          type: str
        pending:
          description: Network devices whose firewall is on only once the server has been stopped and started.
          type: list
          elements: str
datacenter_firewall:
  description: Whether the firewall of the datacenter is on. As long as it is off, no rule has an effect.
  returned: success
  type: bool
  sample: true
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall import converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_spec import GROUP_OPTIONS, group_spec


def main() -> None:
    module = AnsibleModule(
        argument_spec={**connection_argument_spec(), **GROUP_OPTIONS},
        supports_check_mode=True,
    )
    try:
        spec = group_spec(module.params)
        client = PveClient(connection_from_params(module.params))
        result = converge(client, spec, check_mode=module.check_mode)
    except (Unable, ConnectionParamsError, PveError) as error:
        module.fail_json(msg=str(error))
    if spec.state == "present" and not result.datacenter_enabled:
        module.warn("The firewall of the datacenter is off: no rule has an effect until somebody turns it on")
    for member in result.group["members"]:
        if member["pending"]:
            module.warn(
                f"The firewall of {', '.join(member['pending'])} of server {member['name']} is not on before the server"
                " is stopped and started: until then no rule has an effect there"
            )
    module.exit_json(
        changed=result.plan.changed,
        diff=result.plan.diff(),
        group=result.group,
        datacenter_firewall=result.datacenter_enabled,
    )


if __name__ == "__main__":
    main()
