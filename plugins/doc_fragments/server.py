# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options of one server: goes with SERVER_OPTIONS of module_utils/_pve/server_spec.py."""

    DOCUMENTATION = r"""
options:
  name:
    description:
      - Name of the server, a DNS name.
      - Without O(vmid) it says which server is meant, and must be unique in the cluster.
    type: str
  vmid:
    description:
      - Id of the server, V(100) to V(999999999). A new server gets the cluster's next free one unless it is given.
    type: int
  node:
    description:
      - Node of the server. A clone is made on its template's node and an empty server on the cluster's default node
        unless it is given. An existing server is not moved.
    type: str
  create:
    description: Whether a server that does not exist is created. If not, that is an error.
    type: bool
    default: true
  rename:
    description:
      - Whether the server with this O(vmid) gets O(name) when it has another name. Without it that is an error, for it
        could be somebody else's server.
    type: bool
    default: false
  clone:
    description:
      - What a new server is cloned from. Has no effect on a server that exists.
      - Without it, a server that does not exist is created empty when O(disks), O(nics) or O(memory) is given.
    type: dict
    suboptions:
      template:
        description: Name or vmid of the template.
        type: str
        required: true
      full:
        description: Whether to copy the disks, instead of linking them to the template's.
        type: bool
        default: true
      storage:
        description: Storage for the copied disks; that of the template's disks unless given. Needs O(clone.full=true).
        type: str
      format:
        description: Format of the copied disks on a file storage. Needs O(clone.full=true).
        type: str
        choices: [raw, qcow2, vmdk]
  cores:
    description: CPU cores a socket.
    type: int
  sockets:
    description: CPU sockets.
    type: int
  cpu:
    description: CPU type with its flags, as in V(host) or V(x86-64-v2-AES,flags=+pcid).
    type: str
  memory:
    description: Memory in MiB.
    type: int
  balloon:
    description: Smallest memory in MiB that ballooning may leave; V(0) switches the balloon device off.
    type: int
  onboot:
    description: Whether it starts with its node.
    type: bool
  protection:
    description: Whether PVE refuses to remove it or its disks.
    type: bool
  ostype:
    description: Kind of guest, as in V(l26) or V(win11).
    type: str
  scsihw:
    description: SCSI controller, as in V(virtio-scsi-single).
    type: str
  bios:
    description: Firmware.
    type: str
    choices: [seabios, ovmf]
  machine:
    description: Machine type, as in V(q35).
    type: str
  disks:
    description:
      - Disks by slot, V(ide0) to V(ide3), V(sata0) to V(sata5), V(scsi0) to V(scsi30), V(virtio0) to V(virtio15).
        Slots that are not listed are left alone, and so are options of a disk that are not given.
      - "C(size): as in V(50G). A new disk needs it. A smaller disk grows, a larger one is an error: PVE disks cannot
        shrink."
      - "C(storage): where a new disk is made. Default is O(clone.storage), the cluster's default storage, or that
        of the first disk, in this order. A disk is not moved to another storage."
      - "C(format): V(raw), V(qcow2) or V(vmdk), for a new disk on a file storage."
      - "C(ssd), C(discard), C(iothread), C(backup), C(replicate), C(ro): booleans. PVE has C(ssd) only for IDE, SATA
        and SCSI disks, C(iothread) and C(ro) only for SCSI and VirtIO disks."
      - "C(cache): V(none), V(writethrough), V(writeback), V(unsafe) or V(directsync). C(aio): V(native), V(threads) or
        V(io_uring). C(serial): text."
      - "C(iops_rd), C(iops_wr): operations a second. C(mbps_rd), C(mbps_wr): MB a second."
      - "C(state): V(present), or V(detached): the disk becomes an unused one, its data stays."
    type: dict
  nics:
    description:
      - Network devices, V(net0) to V(net31). Devices that are not listed are left alone, and so are options of a device
        that are not given.
      - "C(bridge): a bridge or virtual network of the node. A new device needs it."
      - "C(model): V(virtio) for a new device unless given. C(mac): PVE makes one unless given."
      - "C(vlan): V(1) to V(4094), V(0) for none. C(trunks): VLANs as in V(10;20-30)."
      - "C(firewall), C(link_down): booleans. C(mtu), C(queues): numbers. C(rate): MB a second."
      - "C(state): V(present) or V(absent)."
    type: dict
  cloud_init:
    description:
      - What cloud-init sets up in the guest. A cloud-init drive is added when the server has none.
      - A running server sees a change after a power cycle, see O(power_cycle).
    type: dict
    suboptions:
      user:
        description: Login of the default user.
        type: str
      password:
        description:
          - Password of the default user. PVE keeps a hash of it and shows nothing, so that it cannot be compared, see
            O(cloud_init.update_password).
        type: str
      update_password:
        description:
          - V(on_create) sets the password of a new server only.
          - V(always) sets it each time, which is a change each time.
        type: str
        choices: [on_create, always]
        default: on_create
      ssh_keys:
        description: Public keys of the default user, all of them; a text may be a whole authorized_keys file.
        type: list
        elements: str
      ipconfig:
        description:
          - Addresses by network device, V(net0) to V(net31), in PVE's notation as in V(ip=10.0.0.5/24,gw=10.0.0.1), or
            as a mapping with C(ip), C(gw), C(ip6) and C(gw6).
        type: dict
      nameservers:
        description: Addresses of DNS servers, all of them.
        type: list
        elements: str
      searchdomain:
        description: DNS search domain.
        type: str
      type:
        description: Format of the drive.
        type: str
        choices: [nocloud, configdrive2, opennebula]
      storage:
        description: Storage for a drive that is added; like a new disk's unless given.
        type: str
  agent:
    description: Whether PVE talks to the QEMU guest agent.
    type: bool
  boot_order:
    description: Devices to boot from, as in V(scsi0) and V(net0).
    type: list
    elements: str
  tags:
    description: All its tags, but for the one that O(role) makes.
    type: list
    elements: str
  role:
    description: What it is for, kept as the one tag that begins with C(role-); an empty text removes that tag.
    type: str
  pool:
    description: Its resource pool; an empty text takes it out of its pool.
    type: str
  description:
    description: Its notes; an empty text removes them.
    type: str
  power_cycle:
    description:
      - What happens when a running server takes a change only when it is restarted.
      - V(never) leaves it running and returns what is pending.
      - V(when_needed) restarts it, cleanly unless O(force) is given.
    type: str
    choices: [never, when_needed]
    default: never
  force:
    description: Whether stopping is like pulling the plug, instead of a clean shutdown.
    type: bool
    default: false
  purge:
    description: Whether O(state=absent) also takes it out of backup jobs, replication and high availability.
    type: bool
    default: false
  shutdown_timeout:
    description: Seconds a clean shutdown may take; when they are over, that is an error.
    type: int
    default: 120
  timeout:
    description: Seconds a single task of PVE, such as the copy of the disks, may take.
    type: int
    default: 600
  wait_for_address:
    description: Whether to wait until the guest agent tells an address. Needs a running server and its O(agent).
    type: bool
    default: false
  address_timeout:
    description: Seconds to wait for an address.
    type: int
    default: 300
  state:
    description:
      - V(present) is there, running or not. V(started) runs. V(stopped) does not run.
      - V(restarted) is restarted each time.
      - V(absent) is gone with its disks. A running server is stopped hard before.
    type: str
    choices: [present, started, stopped, restarted, absent]
    default: present
"""
