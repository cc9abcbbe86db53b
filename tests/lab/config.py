# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""A VM's config: read, changed, pending, reverted."""

from __future__ import annotations

import hashlib
import re
import secrets
import urllib.parse
from typing import Any

from aiohttp import web
from fakepve import schema as pve_schema
from fakepve.model import PveError
from fakepve.routing import die, param_error, split_list

from .cloudinit_options import is_cloudinit_option
from .drives import DRIVE_KEY, NIC_KEY, UNUSED_KEY, Drive, boot_devices, drives, with_mac
from .guest import LabGuest
from .hotplug import hotplug_features, takes_effect
from .tasks import Log

CONTROL = frozenset(["node", "vmid", "delete", "revert", "digest", "skiplock", "force", "background_delay"])
ROOT_ONLY = re.compile(r"args|lock|hookscript|parallel\d+")
SSH_KEY = re.compile(
    r"(?:^|\s)(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp\d+|sk-[a-z0-9@.-]+)\s+[A-Za-z0-9+/]+=*(?:\s|$)"
)
MASKED = "**********"


class Config:
    """Mixin: GET, PUT and POST of ``config``, and ``pending``."""

    # ---------------------------------------------------------------- reading

    async def _config_get(self, request: web.Request) -> web.Response:
        return await self.checked(request, self._read_config)

    async def _read_config(self, values: dict[str, Any], user: str) -> dict[str, Any]:
        guest = self.find(values["node"], values["vmid"])
        if values.get("snapshot"):
            if values["snapshot"] not in guest.snapshots:
                raise die(f"snapshot '{values['snapshot']}' does not exist")
            config = dict(guest.snapshots[values["snapshot"]])
        else:
            config = dict(guest.config) if values.get("current") else guest.merged()
        return {**_shown(config), "digest": guest.digest()}

    async def _pending(self, request: web.Request) -> web.Response:
        return await self.checked(request, self._read_pending)

    async def _read_pending(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        guest = self.find(values["node"], values["vmid"])
        config = _shown(guest.config)
        pending = _shown(guest.pending)
        items: list[dict[str, Any]] = []
        for key in sorted(config.keys() | pending.keys()):
            item: dict[str, Any] = {"key": key}
            if key in config:
                item["value"] = config[key]
            if pending.get(key) is not None:
                item["pending"] = pending[key]
            elif key in pending:
                item["delete"] = 2 if key in guest.forced else 1
            items.append(item)
        return [*items, {"key": "digest", "value": guest.digest()}]

    # ---------------------------------------------------------------- writing

    async def _config_put(self, request: web.Request) -> web.Response:
        async def write(values: dict[str, Any], user: str) -> None:
            changes, deletes, reverts = self._config_request(values, user)
            async with self.request_lock(values["vmid"]):
                await self._import_changes(values, changes, lambda line: None)
                self._write_config(values, user, changes, deletes, reverts)

        return await self.checked(request, write)

    async def _config_post(self, request: web.Request) -> web.Response:
        async def write(values: dict[str, Any], user: str) -> str:
            changes, deletes, reverts = self._config_request(values, user)

            async def body(log: Any) -> None:
                async with self.config_lock(values["vmid"]):
                    try:
                        await self._import_changes(values, changes, log)
                        self._write_config(values, user, changes, deletes, reverts)
                    except PveError as error:
                        for key, text in (error.errors or {}).items():
                            log(f"{key}: {text}")
                        raise

            return await self.worker(values["node"], "qmconfig", values["vmid"], user, body)

        return await self.checked(request, write)

    def _config_request(self, values: dict[str, Any], user: str) -> tuple[dict[str, Any], list[str], list[str]]:
        """(what to set, to delete, to revert), after the checks PVE makes before it takes the lock."""
        changes = {key: value for key, value in values.items() if key not in CONTROL}
        deletes = ["ide2" if key == "cdrom" else key for key in split_list(values.get("delete"))]
        reverts = split_list(values.get("revert"))
        if values.get("skiplock") and user != "root@pam":
            raise param_error(skiplock="Only root may use this option.")
        if not changes and not deletes and not reverts:
            raise die("no options specified")
        for key in reverts:
            if not _known(key):
                raise param_error(revert=f"unknown option '{key}'")
            if key in changes:
                raise param_error(delete=f"you can't use '-{key}' and -revert {key}' at the same time")
        for key in deletes:
            if key in changes:
                raise param_error(delete=f"you can't use '-{key}' and -delete {key}' at the same time")
            if key in reverts:
                raise param_error(revert=f"you can't use '-delete {key}' and -revert {key}' at the same time")
            if not _known(key):
                raise param_error(delete=f"unknown option '{key}'")
        self.need_quorum()
        self.find(values["node"], values["vmid"])
        self.check_config_rights(user, values["vmid"], [*changes, *deletes])
        return self.accept(user, values["node"], int(values["vmid"]), changes), deletes, reverts

    def check_config_rights(self, user: str, vmid: int, keys: list[str], pool: str | None = None) -> None:
        """PVE's check_vm_modify_config_perm."""
        for key in keys:
            if ROOT_ONLY.fullmatch(key) and user != "root@pam":
                raise die(f"only root can set '{key}' config")
            privilege = "VM.Config.Cloudinit" if is_cloudinit_option(key) else self._config_priv(key)
            self._qm_perm(user, vmid, pool, privilege)

    def accept(
        self, user: str, node: str, vmid: int, changes: dict[str, Any], default: str | None = None
    ) -> dict[str, Any]:
        """The values as PVE stores them: NICs with a MAC, passwords hashed; drives are checked, not yet allocated."""
        accepted = dict(changes)
        for key, value in changes.items():
            if NIC_KEY.fullmatch(key):
                accepted[key] = with_mac(value)
            elif key == "cipassword":
                accepted[key] = _hashed(str(value))
            elif key == "sshkeys":
                _check_ssh_keys(str(value))
            elif DRIVE_KEY.match(key):
                self.check_drive(user, node, vmid, key, str(value), default)
        return accepted

    def _writable(self, values: dict[str, Any]) -> LabGuest:
        guest: LabGuest = self.find(values["node"], values["vmid"])
        if values.get("digest") and values["digest"] != guest.digest():
            raise die("checksum mismatch (file change by other user?)")
        if not values.get("skiplock"):
            self._check_lock(guest)
        return guest

    async def _import_changes(self, values: dict[str, Any], changes: dict[str, Any], log: Log) -> None:
        if any("import-from=" in str(changes[key]) for key in changes if DRIVE_KEY.match(key)):
            await self.import_disks(self._writable(values), changes, None, log)

    def _write_config(
        self, values: dict[str, Any], user: str, changes: dict[str, Any], deletes: list[str], reverts: list[str]
    ) -> None:
        guest = self._writable(values)
        after = {**guest.merged(), **changes}
        self._check_balloon(after)
        if "boot" in changes:
            check_boot(after)
        for key in reverts:
            self._drop_pending(guest, key)
        for key in deletes:
            self._pend_delete(guest, key, force=bool(values.get("force")))
        for key, value in changes.items():
            self._pend_change(guest, key, value)
        _clean_pending(guest)
        errors = self._settle(guest)
        self.forget_used(guest)
        guest.lock = guest.config.get("lock")
        guest.template = bool(guest.config.get("template"))
        guest.name = guest.config.get("name") or f"VM {guest.vmid}"
        self.note(guest)
        if errors:
            raise param_error(**errors)

    @staticmethod
    def _check_balloon(config: dict[str, Any]) -> None:
        memory = int(str(config.get("memory", 512)).rpartition("=")[2])
        if config.get("balloon") is not None and int(config["balloon"]) > memory:
            raise die("balloon value too large (must be smaller than assigned memory)")

    def _drop_pending(self, guest: LabGuest, key: str) -> None:
        value = guest.pending.pop(key, None)
        guest.forced.discard(key)
        if value is not None and DRIVE_KEY.match(key):
            self._detach_unless_current(guest, key, value)

    def _detach_unless_current(self, guest: LabGuest, key: str, value: str) -> None:
        current = guest.config.get(key)
        if current is None or Drive(current).volume != Drive(value).volume:
            self.detach(guest, value)

    def _pend_delete(self, guest: LabGuest, key: str, *, force: bool) -> None:
        if key not in guest.merged():
            return  # PVE warns in its own log and goes on
        self._drop_pending(guest, key)
        if UNUSED_KEY.fullmatch(key):
            self.free(Drive(guest.config.pop(key)).volume)
            return
        if DRIVE_KEY.match(key) and str(guest.config.get("protection", 0)) == "1":
            raise die(f"can't remove drive '{key}' - protection mode enabled")
        self._set_boot(guest, [device for device in boot_devices(guest.merged()) if device != key])
        if key in guest.config:
            guest.pending[key] = None
            if force:
                guest.forced.add(key)

    def _pend_change(self, guest: LabGuest, key: str, value: Any) -> None:
        if DRIVE_KEY.match(key):
            self._drop_pending(guest, key)
            value, _made = self.attach(guest, key, str(value))
            drive = Drive(value)
            order = boot_devices(guest.merged())
            if order and drive.cdrom and not drive.cloudinit and key not in order:
                self._set_boot(guest, [*order, key])
        elif key == "vmgenid" and str(value) == "1":
            value = self.new_uuid()
        guest.forced.discard(key)
        guest.pending[key] = value

    @staticmethod
    def _set_boot(guest: LabGuest, order: list[str]) -> None:
        if order != boot_devices(guest.merged()):
            guest.pending["boot"] = "order=" + ";".join(order) if order else ""

    def _settle(self, guest: LabGuest) -> dict[str, str]:
        """Apply what can be applied now. Errors by option: such a change was refused and stays pending."""
        if not guest.running:
            self.apply_pending(guest)
            return {}
        errors = {}
        features = hotplug_features(guest.config)
        bootable = boot_devices(guest.config)
        for key, new in list(guest.pending.items()):
            old = guest.config.get(key)
            if not takes_effect(key, old, new, features):
                continue
            if DRIVE_KEY.match(key) and key in bootable and _unplugs(old, new):
                errors[key] = f"hotplug problem - can't unplug bootdisk '{key}'"
                continue
            self.apply_pending(guest, [key])
        return errors

    def apply_pending(self, guest: LabGuest, keys: list[str] | None = None) -> None:
        """Move pending values (all, or these) into the current config; disks that leave become unusedN."""
        for key in list(guest.pending) if keys is None else keys:
            new = guest.pending.pop(key)
            old = guest.config.pop(key, None)
            if new not in (None, ""):
                guest.config[key] = new
            if DRIVE_KEY.match(key) and _unplugs(old, new):
                self.detach(guest, str(old), destroy=key in guest.forced)
            guest.forced.discard(key)


def _shown(config: dict[str, Any]) -> dict[str, Any]:
    """A config as the API shows it: no password, memory as text."""
    shown = dict(config)
    if shown.get("cipassword") is not None:
        shown["cipassword"] = MASKED
    if shown.get("memory") is not None:
        shown["memory"] = str(shown["memory"])
    return shown


def _known(key: str) -> bool:
    properties = pve_schema.load().paths["/nodes/{node}/qemu/{vmid}/config"]["PUT"]["parameters"]["properties"]
    return key not in CONTROL and pve_schema._prop(properties, key) is not None


def _unplugs(old: Any, new: Any) -> bool:
    """Whether this change takes a volume away."""
    return old is not None and (new is None or Drive(str(old)).volume != Drive(str(new)).volume)


def _clean_pending(guest: LabGuest) -> None:
    """Pending values that change nothing are dropped."""
    for key, value in list(guest.pending.items()):
        current = guest.config.get(key)
        if (value in (None, "") and current is None) or (current is not None and str(value) == str(current)):
            del guest.pending[key]


def check_boot(config: dict[str, Any]) -> None:
    known = {*drives(config), *(key for key in config if re.fullmatch(r"(?:net|usb|hostpci)\d+", key))}
    for device in boot_devices(config):
        if device not in known:
            raise param_error(boot=f"invalid bootorder: device '{device}' does not exist'")


def _check_ssh_keys(encoded: str) -> None:
    for line in urllib.parse.unquote(encoded).splitlines():
        if line.strip() and not line.lstrip().startswith("#") and not SSH_KEY.search(line):
            raise die("SSH public key validation error")


def _hashed(password: str) -> str:
    """PVE stores a salted hash: the same password written twice is a change."""
    salt = secrets.token_hex(4)
    return f"$5${salt}${hashlib.sha256((salt + password).encode()).hexdigest()}"
