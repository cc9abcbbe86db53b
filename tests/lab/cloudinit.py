# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""The cloud-init drive: what its image holds, what it will hold."""

from __future__ import annotations

import urllib.parse
from typing import Any

import yaml

from .cloudinit_options import image_values
from .config import MASKED
from .drives import drives, mac_of
from .guest import LabGuest


class CloudInit:
    """Mixin: ``/cloudinit`` and its dump."""

    def _routes_cloudinit(self) -> list[tuple[str, str, Any]]:
        path = "/nodes/{node}/qemu/{vmid}/cloudinit"
        return [
            ("GET", path, self._cloudinit_pending),
            ("PUT", path, self._cloudinit_update),
            ("GET", path + "/dump", self._cloudinit_dump),
        ]

    def generate_cloudinit(self, guest: LabGuest) -> None:
        """Write the image anew from the current config; nothing happens without a cloud-init drive."""
        if any(drive.cloudinit for drive in drives(guest.config).values()):
            guest.generated = image_values(guest.config)

    async def _cloudinit_pending(self, values: dict[str, Any], user: str) -> list[dict[str, Any]]:
        guest = self.find(values["node"], values["vmid"])
        old, new = guest.generated, image_values(guest.config)
        items = []
        for key in sorted(old.keys() | new.keys()):
            item: dict[str, Any] = {"key": key}
            if key in old:
                item["value"] = MASKED if key == "cipassword" else old[key]
            if key not in new:
                item["delete"] = 1
            elif old.get(key) != new[key]:
                item["pending"] = MASKED if key == "cipassword" else new[key]
            items.append(item)
        return items

    async def _cloudinit_update(self, values: dict[str, Any], user: str) -> None:
        self.find(values["node"], values["vmid"])
        async with self.request_lock(values["vmid"]):
            guest = self.find(values["node"], values["vmid"])
            self._check_lock(guest)
            self.generate_cloudinit(guest)

    async def _cloudinit_dump(self, values: dict[str, Any], user: str) -> str:
        guest = self.find(values["node"], values["vmid"])
        config = image_values(guest.config)
        if values["type"] == "user":
            keys = urllib.parse.unquote(config.get("sshkeys", "")).splitlines()
            data: dict[str, Any] = {"hostname": guest.name, "manage_etc_hosts": True, "ssh_authorized_keys": keys}
            if "ciuser" in config:
                data["user"] = config["ciuser"]
            if "cipassword" in config:
                data["password"] = config["cipassword"]
            return "#cloud-config\n" + yaml.safe_dump(data)
        if values["type"] == "meta":
            return f"instance-id: {guest.digest()}\n"
        nics = [
            {
                "type": "physical",
                "name": f"eth{key[3:]}",
                "mac_address": mac_of(guest.config[key]).lower(),
                "subnets": [config.get(f"ipconfig{key[3:]}", "")],
            }
            for key in sorted(guest.config)
            if key.startswith("net")
        ]
        return yaml.safe_dump({"version": 1, "config": nics})
