# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and answers of the clusters family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import transport
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.credentials import endpoint_url, make_connection
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from pvefleet.schemas.common import Strict, Timestamp


def _checked(check: Callable[[str], object]) -> AfterValidator:
    """Refuses what check raises a ValueError for, with its words."""

    def validate(value: str) -> str:
        try:
            check(value)
        except ValueError as error:
            raise PydanticCustomError("connection", "{problem}", {"problem": str(error)}) from None
        return value

    return AfterValidator(validate)


def _cluster_name(value: str) -> str:
    if not (0 < len(value) <= 255 and value.isprintable() and value == value.strip()):
        raise PydanticCustomError("cluster_name", "1 to 255 printable characters, without blanks around")
    return value


def _username(value: str) -> None:
    make_connection(endpoints=["localhost"], user=value, password="-")  # noqa: S106 - only the user is looked at


def _ca(value: str) -> None:
    transport.tls_context(validate_certs=True, ca_path=None, ca_pem=value, tls_fingerprint=None)


Text = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
Endpoint = Annotated[str, StringConstraints(min_length=1, max_length=2048), _checked(endpoint_url)]
Username = Annotated[str, StringConstraints(min_length=1, max_length=255), _checked(_username)]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=4096)]
Fingerprint = Annotated[str, StringConstraints(max_length=200), _checked(transport.fingerprint_hex)]
Pem = Annotated[str, StringConstraints(max_length=200_000), _checked(_ca)]


class ClusterBody(Strict):
    """A cluster to register: username and password as documented, or an API token in their place."""

    name: Annotated[str, AfterValidator(_cluster_name)] = Field(examples=["prod-cluster"])
    api_endpoint: Endpoint = Field(examples=["https://pve.example.com:8006"])
    token_id: Text | None = Field(default=None, description="root@pam!name, or the bare name with username.")
    token_secret: Secret | None = Field(default=None, validate_default=True)
    username: Username | None = Field(default=None, validate_default=True, examples=["root@pam"])
    password: Secret | None = Field(default=None, validate_default=True)
    tls_fingerprint: Fingerprint | None = Field(
        default=None, description="SHA-256 of the server's certificate, trusted in place of CAs."
    )
    ca_pem: Pem | None = Field(default=None, description="CA certificates to trust, in place of the system's.")
    default: bool = Field(default=False, description="Take this cluster where a request names none.")

    @field_validator("token_secret", "username", "password")
    @classmethod
    def _required(cls, value: Any, info: ValidationInfo) -> Any:
        token_id = info.data.get("token_id")
        needed = {
            "token_secret": token_id is not None,
            "username": token_id is None or "!" not in token_id,
            "password": token_id is None,
        }
        if value is None and needed[str(info.field_name)]:
            raise PydanticCustomError("missing", "Field required")
        return value


class ClusterPatch(Strict):
    """What changes. A password takes the place of a token and the other way round; null forgets a way of trust."""

    api_endpoint: Endpoint | None = None
    token_id: Text | None = None
    token_secret: Secret | None = None
    username: Username | None = None
    password: Secret | None = None
    tls_fingerprint: Fingerprint | None = None
    ca_pem: Pem | None = None
    default: Literal[True] | None = None


class ClusterPath(BaseModel):
    id: str = Field(description="The cluster's UUID.")


class ClusterAnswer(BaseModel):
    """A cluster as the document shows it; default, and what is wrong where something is, are ours."""

    id: str
    name: str
    api_endpoint: str
    status: Literal["healthy", "degraded", "unhealthy", "unknown"]
    proxmox_version: str
    node_count: int
    created_at: Timestamp
    updated_at: Timestamp
    default: bool
    status_reason: str | None = Field(
        default=None,
        description="Only there when the status is not healthy.",
        exclude_if=lambda reason: reason is None,
    )


class ClusterList(BaseModel):
    clusters: list[ClusterAnswer]
    total: int


class NodeAnswer(BaseModel):
    """A node. cpu: load, 0 to 1; memory in bytes; uptime in seconds. null while the node is offline."""

    name: str
    ip_address: str | None
    status: Literal["online", "offline"]
    cpus: int | None = None
    cpu: float | None = None
    memory: int | None = None
    memory_used: int | None = None
    uptime: int | None = None


class NodeList(BaseModel):
    nodes: list[NodeAnswer]
    total: int


class DiskList(BaseModel):
    disks: list[dict[str, Any]] = Field(description="What Proxmox VE says of each disk, and the node that it is in.")
    total: int
    errors: dict[str, str] = Field(description="Nodes whose disks are not known, with the reason.")


class ResourceList(BaseModel):
    resources: list[dict[str, Any]] = Field(description="Rows of Proxmox VE's /cluster/resources.")
    total: int
