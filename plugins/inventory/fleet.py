# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: Guests and nodes of Proxmox VE clusters as hosts
version_added: 0.2.0
author:
  - the PVE Fleet contributors (@pvefleet)
description:
  - Makes hosts of the virtual machines, containers, and nodes of one or several clusters.
  - One listing a cluster is read, and of each guest only what O(addresses) and O(config) ask for, in parallel.
  - The configuration file's name ends in C(fleet.yml) or C(fleet.yaml), as in C(prod.fleet.yml).
  - Every host has the variables C(pve_cluster), C(pve_type) (V(qemu), V(lxc), or V(node)), C(pve_node), C(pve_name),
    and C(pve_status). Guests have C(pve_vmid), C(pve_tags), C(pve_role), C(pve_pool), C(pve_template), C(pve_lock),
    C(pve_maxcpu), C(pve_maxmem), and C(pve_maxdisk) (bytes) as well, and C(pve_ip_addresses) and C(pve_config) where
    they are asked for.
  - What C(ansible_host) is set to is told by O(addresses) and O(networks).
  - A host is called what its guest or node is called. Where two share a name, each is called CLUSTER-NAME-VMID, but a
    node keeps its name when guests have it, too. A guest whose name could be another's CLUSTER-NAME-VMID is called by
    its own. A guest whose name is not known, is no host name, is an address in any notation, or is one like
    V(localhost), is called CLUSTER-VMID. A warning tells of them all.
extends_documentation_fragment:
  - pvefleet.infra.connection
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Tells that the file is for this plugin.
    type: str
    required: true
    choices: [pvefleet.infra.fleet]
  clusters:
    description:
      - Names of clusters in the registry; V(*) is all of them.
      - Without it there is one cluster, found as the modules find theirs by O(cluster), O(api_host), or the
        environment.
    type: list
    elements: str
    default: []
  include:
    description: What becomes hosts.
    type: list
    elements: str
    choices: [guests, nodes]
    default: [guests, nodes]
  templates:
    description: Whether templates become hosts, too.
    type: bool
    default: false
  only:
    description:
      - The guests to take, by any of V(nodes), V(vmids) (V(100) or V(100-199)), V(types) (V(qemu), V(lxc)), V(tags),
        V(pools), V(names) (with V(*) and V(?)), and V(status), each a list of which one has to fit. All that are given
        have to.
      - V(tags) are compared without regard to case, as PVE does by default; V(names), like all the others, with it.
      - It is applied to the listing, before anything else of a guest is read.
      - V(nodes) is for nodes as hosts as well; the others leave them alone.
    type: dict
    default: {}
  exclude:
    description: The guests to leave out, described as in O(only). One condition that fits is enough.
    type: dict
    default: {}
  filters:
    description:
      - Conditions in Jinja, without braces, on the variables of a host. A host has to meet all of them.
      - They come after everything was read. A condition that cannot be evaluated for a host leaves it out with a
        warning, or is an error when O(strict) is set.
      - Nodes do not have the variables of guests. C(pve_vmid == 301) leaves them out with that warning, and
        C(pve_type != 'node' and pve_vmid == 301) without one.
    type: list
    elements: str
    default: []
  addresses:
    description:
      - Where the addresses of guests are read, one or two calls for each guest.
      - V(cloud_init) are the static ones that cloud-init was told to set, and those of a container's configuration.
      - V(agent) asks the QEMU guest agent of guests that run, and looks into containers. It says what it likes, see
        O(networks).
      - V(both) takes those of cloud-init when there is no agent, or it does not answer.
      - Nodes have the address that the cluster knows them by, unless it is V(none).
    type: str
    choices: [none, cloud_init, agent, both]
    default: none
  networks:
    description:
      - Networks as in V(10.0.0.0/8) in which C(ansible_host) has to be. It is the first address in the first of them
        that has one; without such an address C(ansible_host) is not set.
      - Without O(networks) it is a guest's first IPv4 address, or else its first one. Whoever is root in a guest then
        chooses where Ansible connects to, so give the networks where others than you are root.
    type: list
    elements: str
    default: []
  config:
    description: Whether to read the configuration of every guest, as C(pve_config), without cloud-init's password.
    type: bool
    default: false
  group_prefix:
    description: What the names of the groups of O(group_by) begin with.
    type: str
    default: pve_
  group_by:
    description:
      - Which groups to make. With the default of O(group_prefix) they are C(pve_guests), C(pve_nodes), C(pve_qemu), and
        C(pve_lxc) for V(type), and C(pve_cluster_NAME), C(pve_node_NAME), C(pve_status_NAME), C(pve_pool_NAME),
        C(pve_tag_NAME), and C(pve_role_NAME).
      - Characters that names of groups cannot have become underscores.
    type: list
    elements: str
    choices: [type, cluster, node, status, pool, tag, role]
    default: [type, cluster, node, status, pool, tag, role]
  workers:
    description: How many calls are made at the same time, from 1 to 64.
    type: int
    default: 16
  on_unreachable:
    description: Whether a cluster that does not answer is an error, or is left out with a warning.
    type: str
    choices: [error, warn]
    default: error
notes:
  - What PVE and its guests tell is never a template. Names, tags, and notes with braces in them stay as they are.
  - PVE's listing tells the status of a guest up to 10 seconds late.
  - On a node that is offline, the status of guests is V(unknown), PVE does not tell their names, and nothing is read.
  - The cache holds what was read, and no secrets. It is not used when clusters or options have changed, and not written
    when something could not be read.
  - By default Ansible goes on without a source that fails. C(any_unparsed_is_failed) in the section C([inventory]) of
    C(ansible.cfg) makes it stop.
"""

EXAMPLES = r"""
# The smallest one, prod.fleet.yml: the cluster that modules without a cluster work on
plugin: pvefleet.infra.fleet

---
# The web servers of two clusters, reached at the addresses that cloud-init gave them
plugin: pvefleet.infra.fleet
clusters: [prod, lab]
include: [guests]
only: {tags: [role-web], status: [running]}
addresses: cloud_init
networks: [10.0.0.0/8]

---
# Everything, with groups and variables of one's own, kept for five minutes
plugin: pvefleet.infra.fleet
cluster: prod
exclude: {tags: [no-ansible]}
addresses: both
keyed_groups:
  - key: pve_tags | select('match', 'site-')
    separator: ""
groups:
  large: (pve_maxmem | default(0)) >= 16 * 1024 ** 3
compose:
  ansible_user: "'root' if pve_type == 'node' else 'ops'"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/pvefleet
cache_timeout: 300

---
# Without a registry; the secret comes from PVEFLEET_API_TOKEN_SECRET
plugin: pvefleet.infra.fleet
api_host: pve1.example.com
api_token_id: automation@pve!fleet
ca_path: pve-root-ca.pem
"""

from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import inventory_read, registry
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
    single_options,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.inventory import (
    GROUPS,
    Wish,
    filter_from,
    group_names,
    host_names,
    networks_from,
    variables,
)


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "pvefleet.infra.fleet"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith(("fleet.yml", "fleet.yaml"))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            networks = networks_from(self.get_option("networks"))
            hosts = self._hosts(path, cache)
        except (ConnectionParamsError, Unable) as error:
            raise AnsibleParserError(str(error)) from error
        names, warnings = host_names(hosts)
        for warning in warnings:
            self.display.warning(warning)
        self._misfits: dict[str, list[str]] = {}
        for name, facts in zip(names, hosts, strict=True):
            self._add(name, variables(facts, networks), facts)
        for message, left_out in self._misfits.items():
            self.display.warning(f"{len(left_out)} hosts are left out, {left_out[0]} for one: {message}")

    def _hosts(self, path: str, cache: bool) -> list[dict[str, Any]]:
        """The facts of all hosts: from the cache, or read and put there."""
        wish = self._wish()
        connections = self._connections()
        # who asks whom for what; secrets are not in it
        asked = [[one.name, list(one.endpoints), one.user, one.token_id] for one in connections]
        question = {"connections": asked, "wish": repr(wish)}
        key = self.get_cache_key(path)
        cached = self.get_option("cache")
        if cached and cache:
            try:
                kept = self._cache[key]
            except KeyError:
                kept = {}
            if kept.get("question") == question:
                return kept["hosts"]
        workers = self.get_option("workers")
        if not 1 <= workers <= 64:
            raise Unable(f"Unable to use workers: {workers} is not between 1 and 64")
        skip = self.get_option("on_unreachable") == "warn"
        reading = inventory_read.read(connections, wish, workers=workers, skip_unreachable=skip)
        for warning in reading.warnings:
            self.display.warning(warning)
        if cached and reading.whole:
            self._cache[key] = {"question": question, "hosts": reading.hosts}
        return reading.hosts

    def _wish(self) -> Wish:
        include = self.get_option("include")
        return Wish(
            guests="guests" in include,
            nodes="nodes" in include,
            templates=self.get_option("templates"),
            only=filter_from("only", self.get_option("only")),
            exclude=filter_from("exclude", self.get_option("exclude")),
            addresses=self.get_option("addresses"),
            config=self.get_option("config"),
        )

    def _connections(self) -> list[Connection]:
        params = {name: self._rendered(name) for name in connection_argument_spec()}
        clusters = [str(name) for name in dict.fromkeys(self.get_option("clusters"))]
        if not clusters:
            return [connection_from_params(params)]
        if params["cluster"] or single_options(params):
            raise ConnectionParamsError("clusters names them all: there is no place for cluster or api_* beside it")
        if "*" in clusters:
            path = params["registry"] or registry.default_path()
            clusters = list(registry.load(path).clusters)
        return [connection_from_params({**params, "cluster": name}) for name in clusters]

    def _rendered(self, name: str) -> Any:
        """A connection option, which may be a template (a lookup of a secret) in the user's own file."""
        value = self.get_option(name)
        return self.templar.template(value) if isinstance(value, str) else value

    def _add(self, name: str, found: dict[str, Any], facts: dict[str, Any]) -> None:
        strict = self.get_option("strict")
        if not self._fits(name, found, strict):
            return
        self.inventory.add_host(name)
        for variable, value in found.items():
            self.inventory.set_variable(name, variable, value)
        kinds = self.get_option("group_by")
        for group in group_names(facts, self.get_option("group_prefix"), GROUPS if kinds is None else kinds):
            self.inventory.add_group(group)
            self.inventory.add_child(group, name)
        self._set_composite_vars(self.get_option("compose"), found, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), found, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), found, name, strict=strict)

    def _fits(self, name: str, found: dict[str, Any], strict: bool) -> bool:
        self.templar.available_variables = found
        for condition in self.get_option("filters"):
            try:
                if not self.templar.evaluate_conditional(condition):
                    return False
            except AnsibleError as error:
                message = f"Unable to evaluate the filter {condition}: {error}"
                if strict:
                    raise AnsibleParserError(f"{message} (host {name})") from error
                self._misfits.setdefault(message, []).append(name)
                return False
        return True
