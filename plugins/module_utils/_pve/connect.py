# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options by which every module says which cluster it works on.

Whatever the task says comes first, `cluster` or single options but never both. Then the environment, PVEFLEET_*
before PROXMOX_*. Then the registry's default. The environment is read here and not by the argument spec: only so can a
PROXMOX_HOST left over from another tool be told from an api_host in the task.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import registry
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.credentials import (
    DEFAULT_PORT,
    ConnectionParamsError,
    endpoint_url,
    make_connection,
)

__all__ = ["ConnectionParamsError", "connection_argument_spec", "connection_from_params", "single_options"]

TRUST = ("ca_path", "tls_fingerprint", "validate_certs")
TOKEN = ("api_token_id", "api_token_secret")
# The options that describe a cluster without the registry, with the variables that stand in for them.
SINGLE: Mapping[str, tuple[str, ...]] = {
    "api_host": ("PVEFLEET_API_HOST", "PROXMOX_HOST"),
    "api_port": ("PVEFLEET_API_PORT", "PROXMOX_PORT"),
    "api_user": ("PVEFLEET_API_USER", "PROXMOX_USER"),
    "api_password": ("PVEFLEET_API_PASSWORD", "PROXMOX_PASSWORD"),
    "api_token_id": ("PVEFLEET_API_TOKEN_ID", "PROXMOX_TOKEN_ID"),
    "api_token_secret": ("PVEFLEET_API_TOKEN_SECRET", "PROXMOX_TOKEN_SECRET"),
    "ca_path": ("PVEFLEET_CA_PATH", "PROXMOX_CA_PATH"),
    "tls_fingerprint": ("PVEFLEET_TLS_FINGERPRINT", "PROXMOX_TLS_FINGERPRINT"),
    "validate_certs": ("PVEFLEET_VALIDATE_CERTS", "PROXMOX_VALIDATE_CERTS"),
}
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def connection_argument_spec() -> dict[str, dict[str, Any]]:
    """The argument spec that goes with the documentation fragment pvefleet.infra.connection."""
    return {
        "cluster": {"type": "str"},
        "registry": {"type": "path"},
        "api_host": {"type": "str"},
        "api_port": {"type": "int"},
        "api_user": {"type": "str"},
        "api_password": {"type": "str", "no_log": True},
        "api_token_id": {"type": "str", "no_log": False},
        "api_token_secret": {"type": "str", "no_log": True},
        "ca_path": {"type": "path"},
        "tls_fingerprint": {"type": "str"},
        "validate_certs": {"type": "bool"},
        "connect_timeout": {"type": "float", "default": 5.0},
        "read_timeout": {"type": "float", "default": 40.0},
    }


def single_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """The single options that a task gives. ConnectionParamsError when it names a cluster beside them."""
    given = {option: params[option] for option in SINGLE if params.get(option) is not None}
    if given and params.get("cluster"):
        raise ConnectionParamsError(f"cluster and {', '.join(given)} exclude each other: the registry has it all")
    return given


def connection_from_params(params: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Connection:
    """The connection that a task's parameters, its environment and the registry add up to.

    ConnectionParamsError, one sentence, when they contradict each other, when something is missing, and for a registry
    that cannot be used.
    """
    env = os.environ if environment is None else environment
    given = single_options(params)
    timeouts = {option: params[option] for option in ("connect_timeout", "read_timeout") if params.get(option)}
    cluster = params.get("cluster")
    if given:
        return _from_single(given, env, timeouts)
    if not cluster and not params.get("registry"):
        cluster = env.get("PVEFLEET_CLUSTER")
        if not cluster and any(env.get(name) for name in SINGLE["api_host"]):
            return _from_single(given, env, timeouts)
    path = params.get("registry") or registry.default_path(env)
    if not cluster and not os.path.exists(path):
        raise ConnectionParamsError(
            f"which cluster? Give cluster or api_host, or set PVEFLEET_CLUSTER or PROXMOX_HOST; there is no registry"
            f" {path} with a default either"
        )
    return registry.load(path).connection(cluster, **timeouts)


def _from_single(given: Mapping[str, Any], env: Mapping[str, str], timeouts: Mapping[str, Any]) -> Connection:
    # one login and one trust: what the task says of either leaves no room for another one from the environment
    ignored: set[str] = set()
    if "api_password" in given:
        ignored.update(TOKEN)
    if any(option in given for option in TRUST):
        ignored.update(TRUST)
    options = dict(given)
    for option in SINGLE.keys() - given.keys() - ignored:
        found = next((env[name] for name in SINGLE[option] if env.get(name)), None)
        if found is not None:
            options[option] = _typed(option, found)
    if "api_password" not in given and all(option in options for option in TOKEN):
        options.pop("api_password", None)
    if not options.get("api_host"):
        raise ConnectionParamsError(f"{', '.join(sorted(given))} given, but neither api_host nor PROXMOX_HOST")
    return make_connection(
        endpoints=[endpoint_url(options["api_host"], options.get("api_port", DEFAULT_PORT))],
        user=options.get("api_user"),
        password=options.get("api_password"),
        token_id=options.get("api_token_id"),
        token_secret=options.get("api_token_secret"),
        validate_certs=options.get("validate_certs", True),
        ca_path=options.get("ca_path"),
        tls_fingerprint=options.get("tls_fingerprint"),
        **timeouts,
    )


def _typed(option: str, text: str) -> Any:
    """A variable's text as the option's type."""
    if option == "api_port":
        if not text.isdecimal():
            raise ConnectionParamsError(f"{' or '.join(SINGLE[option])} must be a port number")
        return int(text)
    if option == "validate_certs":
        if text.lower() not in (*_TRUE, *_FALSE):
            raise ConnectionParamsError(f"{' or '.join(SINGLE[option])} must be true or false")
        return text.lower() in _TRUE
    return text
