# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry: a YAML file of named clusters.

    clusters:
      prod:
        endpoints: [https://pve1.example.com:8006, https://pve2.example.com:8006]
        user: automation@pve
        token_id: fleet
        token_secret: {file: ~/.config/pvefleet/prod.token}
        ca_path: prod-ca.pem
        default_storage: local-lvm
    default: prod

A secret is plain text (then the file must be its owner's alone), encrypted by Ansible Vault (`!vault`), or taken from
an environment variable or a file. Relative paths start at the registry's folder. The whole file may be encrypted too.
"""

from __future__ import annotations

import copy
import fcntl
import functools
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import vault
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.credentials import (
    ConnectionParamsError,
    endpoint_url,
    make_connection,
)

try:
    import yaml
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None

DEFAULT_PATH = "~/.config/pvefleet/clusters.yml"
SECRETS = ("password", "token_secret")
# Recorded by proxmox_cluster, of no use to a connection.
BOOKKEEPING = ("id", "created_at", "updated_at")
# What an entry may have, and of which type.
KEYS: Mapping[str, type] = {
    "endpoints": list,
    "user": str,
    "password": str,
    "token_id": str,
    "token_secret": str,
    "ca_path": str,
    "ca_pem": str,
    "tls_fingerprint": str,
    "validate_certs": bool,
    "default_node": str,
    "default_storage": str,
    "id": str,
    "created_at": str,
    "updated_at": str,
}
_NOUN = {str: "text (quote it)", bool: "true or false", list: "a list"}
_ABOUT = "# Written by pvefleet.infra.proxmox_cluster, which does not keep comments.\n"


class RegistryError(ConnectionParamsError):
    """The registry cannot be used. str() is one sentence that names the file, the place in it and no secret.

    cause: the sentence's last part alone.
    """

    def __init__(self, path: str, cause: str, *, verb: str = "use", place: str | None = None) -> None:
        super().__init__(f"Unable to {verb} the registry {path}: {f'{place}: ' if place else ''}{cause}")
        self.cause = cause


@dataclass
class Registry:
    """clusters: name to entry, as written. default: the cluster that is meant when none is named."""

    path: str
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    default: str | None = None
    encrypted: bool = False

    def pick(self, name: str | None) -> str:
        """The name of an entry: the given one, else the default, else the only one. RegistryError if there is none."""
        chosen = name or self.default or (next(iter(self.clusters)) if len(self.clusters) == 1 else None)
        known = ", ".join(sorted(self.clusters)) or "none"
        if chosen is None:
            raise self._error(f"it has no default cluster: name one of its clusters ({known})")
        if chosen not in self.clusters:
            raise self._error(f"it has no cluster {chosen} (it has: {known})")
        return chosen

    def connection(self, name: str | None = None, **overrides: Any) -> Connection:
        """How to reach a cluster, its secrets read now. overrides: timeouts. RegistryError."""
        chosen = self.pick(name)
        entry = self.clusters[chosen]
        options = {"endpoints": [], **{key: value for key, value in entry.items() if key not in BOOKKEEPING}}
        for key in SECRETS:
            if key in options:
                options[key] = self.secret(chosen, key)
        if "ca_path" in options:
            options["ca_path"] = self._near(options["ca_path"])
        try:
            return make_connection(name=chosen, **options, **overrides)
        except ConnectionParamsError as error:
            raise self._error(str(error), f"clusters.{chosen}") from None

    def secret(self, name: str, key: str) -> str:
        """A secret in plain text. RegistryError when the variable, the file or the vault's password is not there."""
        value = self.clusters[name][key]
        where = f"clusters.{name}.{key}"
        try:
            if isinstance(value, vault.VaultText):
                return vault.decrypt(value)
            if isinstance(value, str):
                return value
            if "env" in value:
                found = os.environ.get(value["env"])
                if not found:
                    raise ValueError(f"the environment variable {value['env']} is not set")
                return found
            with open(self._near(value["file"]), encoding="utf-8") as file:
                return file.read().rstrip("\r\n")
        except OSError as error:
            raise self._error(f"{value['file']}: {error.strerror}", where) from None
        except UnicodeDecodeError:
            raise self._error(f"{value['file']} is not text", where) from None
        except ValueError as error:
            raise self._error(str(error), where) from None

    def _near(self, path: str) -> str:
        return os.path.join(os.path.dirname(os.path.abspath(self.path)), os.path.expanduser(path))

    def _error(self, cause: str, place: str | None = None) -> RegistryError:
        return RegistryError(self.path, cause, place=place)


def default_path(environment: Mapping[str, str] | None = None) -> str:
    """Where the registry is when nobody says: PVEFLEET_REGISTRY, else a file of the user's."""
    env = os.environ if environment is None else environment
    return os.path.expanduser(env.get("PVEFLEET_REGISTRY") or DEFAULT_PATH)


def load(path: str) -> Registry:
    """The registry in the file. RegistryError when it is missing, unreadable, open to others, or has a wrong key."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except OSError as error:
        raise RegistryError(path, str(error.strerror)) from None
    except UnicodeDecodeError:
        raise RegistryError(path, "it is not text") from None
    registry = parse(text, path)
    if mode & 0o077 and not registry.encrypted and _has_plain_secret(registry):
        raise RegistryError(
            path,
            f"it holds secrets in plain text and its mode {mode:04o} lets others at them; chmod 600 it, and change the"
            " secrets if others were there",
        )
    return registry


def parse(text: str, path: str) -> Registry:
    """The registry in a text, read strictly: an unknown key is an error. path is for messages and relative paths."""
    if MISSING is not None:
        raise RegistryError(path, f"the Python package PyYAML is missing ({MISSING})")
    encrypted = text.startswith(vault.HEADER)
    try:
        document = yaml.load(vault.decrypt(text) if encrypted else text, Loader=_loader())  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        # PyYAML's own words quote the line, which may hold a secret
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        duplicate = f": {error.problem}" if isinstance(error, _duplicate_key()) else ""
        raise RegistryError(path, f"it is not valid YAML{place}{duplicate}") from None
    except yaml.YAMLError:
        raise RegistryError(path, "it is not valid YAML") from None
    except ValueError as error:
        raise RegistryError(path, str(error)) from None
    problem = _problem(document)
    if problem:
        raise RegistryError(path, problem)
    document = document or {}
    return Registry(path, document.get("clusters") or {}, document.get("default"), encrypted)


@contextmanager
def edit(path: str) -> Iterator[Registry]:
    """The registry, empty if there is none yet, to change; saved on leaving when it changed. Writers wait for each
    other. The file is replaced as a whole, mode 0600, encrypted if it was."""
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        # beside the registry, because the registry itself is replaced
        lock = os.open(os.path.join(folder, f".{os.path.basename(target)}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise RegistryError(path, str(error.strerror), verb="write") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        registry = load(target) if os.path.exists(target) else Registry(target)
        before = copy.deepcopy((registry.clusters, registry.default))
        yield registry
        if (registry.clusters, registry.default) != before:
            _write(registry, folder)
    finally:
        os.close(lock)


def dump(registry: Registry) -> str:
    """The file's text, not encrypted."""
    document: dict[str, Any] = {"clusters": registry.clusters}
    if registry.default is not None:
        document["default"] = registry.default
    return _ABOUT + yaml.dump(document, Dumper=_dumper(), sort_keys=False, allow_unicode=True)


def _write(registry: Registry, folder: str) -> None:
    text = dump(registry)
    parse(text, registry.path)  # never replace a good file by one that could not be read again
    try:
        if registry.encrypted:
            text = vault.encrypt(text)
        handle, draft = tempfile.mkstemp(dir=folder, prefix=".clusters-")  # made with mode 0600
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, registry.path)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise RegistryError(registry.path, str(error.strerror), verb="write") from None
    except ValueError as error:
        raise RegistryError(registry.path, str(error), verb="write") from None


def _has_plain_secret(registry: Registry) -> bool:
    values = (entry.get(key) for entry in registry.clusters.values() for key in SECRETS)
    return any(isinstance(value, str) and not isinstance(value, vault.VaultText) for value in values)


def _problem(document: Any) -> str | None:
    """What is wrong with a registry's structure: the first thing found, never with a value."""
    if document is None:
        return None
    if not isinstance(document, dict):
        return "it must be a mapping with the key clusters"
    unknown = [key for key in document if key not in ("clusters", "default")]
    if unknown:
        return f"the key {unknown[0]} is unknown (known: clusters, default)"
    clusters = document.get("clusters")
    if clusters is not None and not isinstance(clusters, dict):
        return "clusters must be a mapping of names to clusters"
    for name, entry in (clusters or {}).items():
        problem = name_problem(name) or _entry_problem(entry)
        if problem:
            return f"clusters.{name}{problem if problem.startswith('.') else f': {problem}'}"
    default = document.get("default")
    if default is not None and default not in (clusters or {}):
        return "default names a cluster that is not in clusters"
    return None


def name_problem(name: Any) -> str | None:
    """Why name cannot name a cluster."""
    if not isinstance(name, str) or re.fullmatch(r"\S(?:[^\x00-\x1f\x7f]{0,253}\S)?", name) is None:
        return "a cluster's name is a text of 1 to 255 characters (quote numbers)"
    return None


def _entry_problem(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "a cluster is a mapping"
    for key, value in entry.items():
        if key not in KEYS:
            return f".{key} is unknown (known: {', '.join(KEYS)})"
        if key in SECRETS and isinstance(value, dict):
            if len(value) != 1 or not set(value) <= {"env", "file"} or not isinstance(next(iter(value.values())), str):
                return f".{key} must be text, or {{env: NAME}}, or {{file: PATH}}"
        elif not isinstance(value, KEYS[key]) or (key not in SECRETS and isinstance(value, vault.VaultText)):
            return f".{key} must be {_NOUN[KEYS[key]]}"
    endpoints = entry.get("endpoints")
    if not endpoints or not all(isinstance(endpoint, str) for endpoint in endpoints):
        return ".endpoints must list at least one address, as text"
    for endpoint in endpoints:
        try:
            endpoint_url(endpoint)
        except ConnectionParamsError as error:
            return f".endpoints: {error}"
    return None


@functools.cache
def _duplicate_key() -> type[Exception]:
    class DuplicateKey(yaml.constructor.ConstructorError):
        pass

    return DuplicateKey


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """A SafeLoader that knows !vault and refuses a key that is there twice. Made late: PyYAML may be missing."""

    class Loader(yaml.SafeLoader):
        pass

    def vaulted(loader: yaml.SafeLoader, node: yaml.Node) -> vault.VaultText:
        return vault.VaultText(loader.construct_scalar(node))  # type: ignore[arg-type]

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        loader.flatten_mapping(node)
        seen: set[str] = set()
        for pair in node.value:
            key = pair[0]
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _duplicate_key()(None, None, f"the key {key.value} is there twice", key.start_mark)
            seen.add(str(key.value))
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor("!vault", vaulted)
    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return Loader


@functools.cache
def _dumper() -> type[yaml.SafeDumper]:
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    Dumper.add_representer(
        vault.VaultText, lambda dumper, data: dumper.represent_scalar("!vault", str(data), style="|")
    )
    return Dumper
