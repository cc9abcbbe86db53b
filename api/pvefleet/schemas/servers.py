# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the servers routes take and give. Names and shapes are the document's, beyond it they are Proxmox VE's."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    StrictBool,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pvefleet.schemas.common import Paging, Strict, Timestamp

LARGEST_GIB = 128 * 1024


def _refused(why: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{why}", {"why": why})


def _by(check: Callable[[str], Any]) -> AfterValidator:
    """A check of the collection's, whose ValueError says what is wrong."""

    def validate(text: str) -> str:
        try:
            check(text)
        except ValueError as error:
            raise _refused(str(error)) from None
        return text

    return AfterValidator(validate)


def _size(value: Any) -> str:
    """A number is GiB; `50G`, `512M`, `1.5T` as PVE writes them. Gives the latter."""
    if isinstance(value, str) and len(value) <= 20:
        text = value if value[-1:].isalpha() else f"{value}G"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 < value <= LARGEST_GIB:  # nor infinite, nor NaN, nor of thousands of digits
            raise _refused(f"a size is more than 0 and at most {LARGEST_GIB} GiB")
        text = f"{value}G"
    else:
        raise _refused("a size is a number of GiB, or a text such as 50G")
    try:
        size = values.parse_size(text)
    except ValueError as error:
        raise _refused(str(error)) from None
    if not 0 < size <= LARGEST_GIB * 1024**3:
        raise _refused(f"a size is more than 0 and at most {LARGEST_GIB} GiB")
    return text


def _no_control_characters(text: str) -> str:
    if any(not character.isprintable() and character not in "\n\t" for character in text):
        raise _refused("it has control characters")
    return text


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise _refused("it has control characters or line breaks")
    return text


def _secret_line(secret: SecretStr) -> SecretStr:
    _one_line(secret.get_secret_value())
    return secret


def _prefix_length(value: Any) -> int:
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, str) and value.isdecimal())):
        raise _refused("a subnet is the length of its prefix, such as 24")
    return int(str(value)[:4])


Name = Annotated[str, StringConstraints(max_length=253), _by(values.server_name)]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_one_line)]
TagName = Annotated[str, StringConstraints(max_length=100), _by(values.tag)]
Role = Annotated[str, StringConstraints(min_length=1, max_length=90), _by(lambda role: values.tag(f"role-{role}"))]
Text = Annotated[str, StringConstraints(max_length=8192), AfterValidator(_no_control_characters)]
Size = Annotated[str, BeforeValidator(_size, json_schema_input_type=float | str)]
Address = Annotated[str, StringConstraints(max_length=45), _by(values.ip_address)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=255), AfterValidator(_secret_line)]
Cpu = Annotated[int, Field(strict=True, ge=1, le=8192)]
Memory = Annotated[int, Field(strict=True, ge=16, le=4_178_944, description="MiB")]
Vmid = Annotated[int, Field(strict=True, ge=100, le=999_999_999)]
Seconds = Annotated[int, Field(strict=True, ge=1, le=86_400)]


class Disk(Strict):
    size: Size = Field(description="GiB as a number, or a text such as 50G.", examples=[50])
    interface: Annotated[str, StringConstraints(max_length=10), _by(values.disk_key)] | None = Field(
        default=None, description="Slot; the next free scsi slot unless given.", examples=["scsi0"]
    )
    datastore_id: Word | None = Field(default=None, examples=["local-lvm"])
    disk_type: Literal["ssd", "hdd"] | None = None

    @model_validator(mode="after")
    def _ssd_on_virtio(self) -> Self:
        if self.disk_type == "ssd" and self.interface is not None and self.interface.startswith("virtio"):
            raise _refused("a virtio disk cannot be shown as an SSD; use scsi, sata or ide")
        return self


class NetworkDevice(Strict):
    bridge: Word = Field(examples=["vmbr0"])
    ip_address: Address | Literal["dhcp"] | None = Field(default=None, examples=["192.168.1.101"])
    subnet: Annotated[int, BeforeValidator(_prefix_length, json_schema_input_type=int | str)] | None = Field(
        default=None, description="Length of the prefix.", examples=["24"]
    )
    gateway: Address | None = Field(default=None, examples=["192.168.1.1"])
    vlan: Annotated[int, Field(strict=True, ge=1, le=4094)] | None = None
    model: Literal[values.NIC_MODELS] | None = None  # type: ignore[valid-type]
    firewall: StrictBool | None = None
    mac: Annotated[str, StringConstraints(max_length=17), _by(values.mac_address)] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.ip_address == "dhcp":
            if self.subnet is not None or self.gateway is not None:
                raise _refused("with ip_address dhcp there is no subnet and no gateway to give")
        elif self.ip_address is not None:
            address = ipaddress.ip_address(self.ip_address)
            if self.subnet is None or not 0 < self.subnet <= address.max_prefixlen:
                raise _refused(f"ip_address {address} needs a subnet from 1 to {address.max_prefixlen}")
            if self.gateway is not None and ipaddress.ip_address(self.gateway).version != address.version:
                raise _refused(f"the gateway {self.gateway} is no IPv{address.version} address as ip_address is")
        return self


class CreateServer(Strict):
    name: Name = Field(examples=["web-server-03"])
    cpu: Cpu | None = Field(default=None, description="Cores; the template's unless given.")
    memory: Memory | None = None
    role: Role | None = Field(default=None, description="What it is for; also chooses the template.")
    ip_address: Address | None = Field(default=None, description="Address of the first network device.")
    disks: list[Disk] = Field(default=[], max_length=31)
    network_devices: list[NetworkDevice] = Field(default=[], max_length=32)
    template_vm_id: Vmid | None = None
    vm_username: Line | None = None
    vm_password: Password | None = None
    ssh_keys: list[Annotated[str, StringConstraints(max_length=16_384), AfterValidator(_one_line)]] | None = Field(
        default=None, max_length=100
    )
    nameservers: list[Address] | None = Field(default=None, max_length=10)
    tags: list[TagName] | None = Field(default=None, max_length=100)
    description: Text | None = None
    node: Word | None = None
    full_clone: StrictBool = Field(default=True, description="False: a linked clone, which always needs its template.")
    start: StrictBool = True
    wait: StrictBool = Field(default=False, description="Finish only when the guest agent tells an address.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.wait and not self.start:
            raise _refused("wait needs start: a server that does not run has no address to wait for")
        interfaces = [disk.interface for disk in self.disks if disk.interface is not None]
        if len(set(interfaces)) < len(interfaces):
            raise _refused("two disks have the same interface")
        first = self.network_devices[0] if self.network_devices else None
        if self.ip_address is None:
            return self
        if first is None or (first.ip_address is None and first.subnet is None):
            raise _refused("ip_address needs a first network device with a subnet")
        if first.ip_address not in (None, self.ip_address):
            raise _refused(f"ip_address is {self.ip_address}, but the first network device has {first.ip_address}")
        return self

    def devices(self) -> list[NetworkDevice]:
        """The network devices, the first one with the server's address."""
        if self.ip_address is None or not self.network_devices:
            return self.network_devices
        first = self.network_devices[0].model_dump() | {"ip_address": self.ip_address}
        return [NetworkDevice.model_validate(first), *self.network_devices[1:]]


class ChangedDisk(Disk):
    interface: Annotated[str, StringConstraints(max_length=10), _by(values.disk_key)] = Field(
        description="A disk of the server to grow or change, or a free slot for a new one.", examples=["scsi1"]
    )


class ChangeServer(Strict):
    cpu: Cpu | None = None
    memory: Memory | None = None
    disks: list[ChangedDisk] | None = Field(default=None, max_length=31)
    tags: list[TagName] | None = Field(default=None, max_length=100, description="All its tags, but for the role's.")
    role: Role | None = None
    description: Text | None = None
    power_cycle: Literal["never", "when_needed"] = Field(
        default="never", description="Whether a running server is restarted for what it cannot take at once."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set - {"power_cycle"}:
            raise _refused("nothing is given that could be changed")
        interfaces = [disk.interface for disk in self.disks or ()]
        if len(set(interfaces)) < len(interfaces):
            raise _refused("two disks have the same interface")
        return self


class StopServer(Strict):
    force: StrictBool = Field(default=False, description="Pull the plug instead of a clean shutdown.")
    timeout: Seconds = Field(default=120, description="Seconds that a clean shutdown may take.")


class WhichCluster(Strict):
    cluster: str | None = Field(default=None, max_length=255, description="The default cluster unless given.")


class ServerList(Paging, WhichCluster):
    pass


class DeleteServer(WhichCluster):
    purge: bool = Field(default=False, description="Also out of backup jobs, replication and high availability.")


class ServerPath(BaseModel):
    name: str = Field(description="The server's name; `name (vmid)` where several have it.")


class Server(BaseModel):
    name: str
    vmid: int
    status: str = Field(examples=["running", "stopped"])
    cpu: int | None
    memory: int | None = Field(description="MiB")
    ip_addresses: list[str]
    role: str | None
    created_at: Timestamp


class ServerDetail(Server):
    cluster: str
    node: str
    tags: list[str]
    description: str | None
    disks: dict[str, str] = Field(description="Disks as Proxmox VE's configuration has them.")
    network_devices: dict[str, str]
    pending: list[str] = Field(description="Settings that a running server takes with its next start.")
    task_id: str | None = Field(description="The task that is changing it now.")


class ServersAnswer(BaseModel):
    success: bool = True
    servers: dict[str, Server]
    page: int
    per_page: int
    total: int


class ServerAnswer(BaseModel):
    success: bool = True
    server: ServerDetail


class AcceptedServer(BaseModel):
    name: str
    status: str = Field(examples=["creating"])
    estimated_time: str | None = Field(description="From how long earlier tasks of the kind took; null without any.")


class AcceptedAnswer(BaseModel):
    success: bool = True
    message: str
    task_id: str
    server: AcceptedServer
