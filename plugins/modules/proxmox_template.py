#!/usr/bin/python
# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: proxmox_template
short_description: Turn a disk image into a template of Proxmox VE
version_added: 0.2.0
description:
  - Makes a template of an image file or of an existing volume, through the API alone, and keeps it what the task says.
    What the task does not say is left alone.
  - The image is on a storage already, is downloaded by the node, or is sent from the machine that runs the task.
  - The last line of the template's notes tells what it is made of.
  - A template that was being made when the run was cut off is finished by the next run, or made anew, once nothing has
    happened to it for some seconds. While another run is making it, this one waits for up to O(timeout).
  - Removes templates and images, but never one that something uses.
author:
  - the PVE Fleet contributors (@pvefleet)
extends_documentation_fragment:
  - pvefleet.infra.connection
  - pvefleet.infra.attributes
  - pvefleet.infra.attributes.full
  - pvefleet.infra.attributes.actiongroup_proxmox
options:
  name:
    description:
      - Name of the template, a DNS name. A new template needs it.
      - Without O(vmid) it says which template is meant, and must be unique in the cluster.
    type: str
  vmid:
    description: Id of the template, V(100) to V(999999999). A new one gets the cluster's next free id without it.
    type: int
  node:
    description:
      - Node of the template. A new one is made on the cluster's default node unless it is given.
      - For O(state=image_absent), the node of the image; needed when several nodes have one of that name.
    type: str
  rename:
    description:
      - Whether the template with this O(vmid) gets O(name) when it has another name. Without it that is an error.
    type: bool
    default: false
  image:
    description:
      - The image that a new template is made of; it stays on its storage. O(image) or O(volume) is needed for
        O(state=present).
      - PVE imports raw, qcow2 and vmdk files that are not compressed, from a storage of files whose content has
        V(import).
    type: dict
    suboptions:
      storage:
        description: The storage that the file is on, or will be.
        type: str
        required: true
      file:
        description:
          - Name of the file there. It must end in V(.qcow2), V(.raw) or V(.vmdk), as its format is.
          - Default is the last part of O(image.url), or the name of the file at O(image.path) with the ending of its
            format.
          - A file that ends in V(.img) or V(.iso) is an ISO image to PVE. Only C(root@pam), logged in by password, can
            import from one.
        type: str
      url:
        description:
          - Where the node downloads the image from. A file of that name that is there already is taken as it is; with
            O(image.checksum) PVE checks it.
          - The result shows it without user, password and query, unless Ansible itself finds fault with the options of
            the task. PVE writes all of it to the log of its task, and Ansible to the system log of the machine that
            runs the task; C(no_log) keeps it from the latter.
        type: str
      path:
        description:
          - A file of the machine that runs the task, to be sent. It is read in any run that may need it, and sent only
            when a template is made of it; then it overwrites a file of its name, unless something uses that; see
            O(state=image_absent).
        type: path
      checksum:
        description:
          - Checksum that the file must have, in hex digits. For O(image.path) it is computed unless given.
          - Goes with O(image.url) or O(image.path) only, for PVE checks a file as it arrives and never later.
        type: str
      checksum_algorithm:
        description: Algorithm of the checksum.
        type: str
        choices: [md5, sha1, sha224, sha256, sha384, sha512]
        default: sha256
      verify_certificates:
        description: Whether the node checks the certificate of O(image.url).
        type: bool
        default: true
  volume:
    description:
      - The volume that a new template is made of, as in V(local-lvm:vm-100-disk-0). It is copied.
    type: str
  disk:
    description: Slot of the disk.
    type: str
    default: scsi0
  disk_storage:
    description: Storage of the disk, and of the cloud-init drive; the cluster's default storage unless given.
    type: str
  disk_size:
    description:
      - Size that the disk of a new template grows to, as in V(10G).
      - The disk of an existing template is not changed; it is an error when it is smaller.
    type: str
  disk_options:
    description:
      - Options of the disk, such as C(discard), C(ssd), C(iothread), C(cache) and, for a new one, C(format). See the
        option C(disks) of M(pvefleet.infra.proxmox_server).
    type: dict
  replace:
    description:
      - V(when_changed) makes the template anew under its id when it is made of another image. The new image is on its
        storage before the old template is removed, and a template with linked clones is not replaced.
      - Another image is one with another checksum. Where there is no checksum, it is one with another name, size or
        time of change. It is never replaced when that cannot be told.
      - The new template keeps name, notes, tags and pool of the old one unless they are given, and has of the rest only
        what the task says.
      - Between the removal of the old template and the creation of the new one nothing but the run knows them. When the
        creation fails, the error tells them; when the run is killed there, only what the task gives survives. Name what
        must not be lost.
    type: str
    choices: [never, when_changed]
    default: never
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
  protection:
    description: Whether PVE refuses to remove it or its disks.
    type: bool
  ostype:
    description: Kind of guest, as in V(l26) or V(win11).
    type: str
  scsihw:
    description: SCSI controller. A new template with a SCSI disk gets V(virtio-scsi-single) unless it is given.
    type: str
  bios:
    description: Firmware.
    type: str
    choices: [seabios, ovmf]
  machine:
    description: Machine type, as in V(q35).
    type: str
  nics:
    description: Network devices, V(net0) to V(net31), as in the option C(nics) of M(pvefleet.infra.proxmox_server).
    type: dict
  cloud_init:
    description: Cloud-init settings. Given, and be it empty, it adds a cloud-init drive where there is none.
    type: dict
    suboptions:
      user:
        description: User to be made.
        type: str
      password:
        description: Password of that user. PVE keeps a hash of it, so it is set when the template is made.
        type: str
      update_password:
        description: V(always) writes the password on each run, which is a change each time.
        type: str
        choices: [on_create, always]
        default: on_create
      ssh_keys:
        description: Public keys of that user, as in C(authorized_keys).
        type: list
        elements: str
      ipconfig:
        description: Addresses by network device, as in V(net0) with C(ip=dhcp).
        type: dict
      nameservers:
        description: Addresses of DNS servers.
        type: list
        elements: str
      searchdomain:
        description: DNS search domain.
        type: str
      type:
        description: Format of the settings.
        type: str
        choices: [nocloud, configdrive2, opennebula]
      storage:
        description: Storage of the drive, when it is made; O(disk_storage) unless given.
        type: str
  agent:
    description: Whether PVE uses the guest agent.
    type: bool
  tags:
    description: All tags.
    type: list
    elements: str
  pool:
    description: Resource pool; empty for none.
    type: str
  description:
    description: Notes. What the template is made of is added to them.
    type: str
  timeout:
    description: Seconds a single task of PVE may take.
    type: int
    default: 600
  state:
    description:
      - V(present) makes the template what the task says.
      - V(absent) removes it, unless linked clones need it.
      - V(image_absent) removes the file O(image.file) from O(image.storage), unless the config of a virtual machine
        refers to it or a template is being made of it. Each virtual machine that can reach the storage is looked at;
        snapshots are not. The user needs C(VM.Audit) on C(/vms) for that, as PVE hides the machines that one may not
        see.
    type: str
    choices: [present, absent, image_absent]
    default: present
notes:
  - PVE wants C(Datastore.AllocateTemplate) on the image's storage for uploads and downloads, and for downloads
    C(Sys.Audit) and C(Sys.Modify) on C(/) or C(Sys.AccessNetwork) on the node as well.
  - Linked clones on LVM-thin do not show in the names of their volumes. There PVE is left to say whether they need the
    template.
seealso:
  - module: pvefleet.infra.proxmox_server
"""

EXAMPLES = r"""
- name: A template from an image that the node downloads and checks
  pvefleet.infra.proxmox_template:
    cluster: prod
    node: pve1
    name: debian-13-cloud
    image:
      storage: local
      url: https://cloud.debian.org/images/cloud/trixie/latest/debian-13-genericcloud-amd64.qcow2
      checksum: "{{ debian_sha512 }}"
      checksum_algorithm: sha512
    disk_storage: local-lvm
    disk_size: 8G
    cores: 2
    memory: 2048
    ostype: l26
    agent: true
    nics:
      net0: {bridge: vmbr0}
    cloud_init: {}
    replace: when_changed

- name: A template from an image that was uploaded before
  pvefleet.infra.proxmox_template:
    cluster: prod
    node: pve1
    vmid: 9001
    name: rocky-9
    image:
      storage: local
      file: rocky-9.qcow2
    disk_storage: local-lvm

- name: A template from a file beside the playbook
  pvefleet.infra.proxmox_template:
    cluster: prod
    node: pve1
    name: appliance
    image:
      storage: local
      path: "{{ playbook_dir }}/files/appliance.img"
    disk_storage: local-lvm

- name: The template is gone
  pvefleet.infra.proxmox_template:
    cluster: prod
    name: appliance
    state: absent

- name: And so is its image
  pvefleet.infra.proxmox_template:
    cluster: prod
    image:
      storage: local
      file: appliance.qcow2
    state: image_absent
"""

RETURN = r"""
template:
  description: The template as it is now, or would be.
  returned: success
  type: dict
  sample:
    vmid: 9001
    name: rocky-9
    node: pve1
    status: present
    image: local:import/rocky-9.qcow2
    fingerprint: 629145600 bytes, ctime 1763712000
    outdated: false
  contains:
    vmid:
      description: Its id; null in check mode for one that would get the next free id.
      type: int
    name:
      description: Its name.
      type: str
    node:
      description: Its node.
      type: str
    status:
      description: V(present) or V(absent).
      type: str
    image:
      description: The image or volume that it is made of; null when its notes do not tell, and when it is absent.
      type: str
    fingerprint:
      description: Checksum of that image, as in V(sha256:9f86...), or else size and time of change of the file.
      type: str
    outdated:
      description: Whether it is made of another image than the task names; null when that cannot be told.
      type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import (
    ConnectionParamsError,
    connection_argument_spec,
    connection_from_params,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import SpecError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.template import converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.template_plan import (
    TEMPLATE_OPTIONS,
    template_spec,
    url_secrets,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={**connection_argument_spec(), **TEMPLATE_OPTIONS},
        required_if=[
            ("state", "present", ("name", "vmid"), True),
            ("state", "absent", ("name", "vmid"), True),
            ("state", "image_absent", ("image",)),
        ],
        supports_check_mode=True,
    )
    # Ansible repeats the options in its result.
    module.no_log_values.update(url_secrets((module.params["image"] or {}).get("url") or ""))
    try:
        spec = template_spec(module.params)
        client = PveClient(connection_from_params(module.params))
        result = converge(client, spec, check_mode=module.check_mode)
    except (SpecError, ConnectionParamsError, PveError, Unable) as error:
        module.fail_json(msg=str(error))
    guest, record = result.guest, result.record
    if result.outdated and not spec.replace:
        module.warn(f"Template {spec.label} is made of another image, {record}; replace: when_changed makes it anew")
    template = {
        "vmid": guest.vmid if guest else spec.server.vmid,
        "name": guest.name if guest else module.params["name"],
        "node": guest.node if guest else None,
        "status": "present" if guest else "absent",
        "image": record.volid if record else None,
        "fingerprint": record.fingerprint if record else None,
        "outdated": result.outdated,
    }
    module.exit_json(changed=result.plan.changed, diff=result.plan.diff(), template=template)


if __name__ == "__main__":
    main()
