# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running server takes at once, and what waits for its next start. Pure.

Follows vmconfig_hotplug_pending of qemu-server's PVE/QemuServer.pm. This foretells; after a change PVE's own pending
list counts.
"""

from __future__ import annotations

from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest, is_drive, is_nic

# $fast_plug_option
_FAST = {"name", "description", "tags", "onboot", "protection"}
_ONLINE_DRIVE_OPTIONS = {"backup", "replicate", "iops_rd", "iops_wr", "mbps_rd", "mbps_wr"}


def takes_effect_at_once(key: str, value: str | None, guest: Guest) -> bool:
    """Whether a running guest takes a new value (None: removal) of a config key without a power cycle."""
    before = guest.running_text(key)
    if not guest.running or key in _FAST or before == value:
        return True
    features = _features(guest.text("hotplug"))
    if is_nic(key):
        return "network" in features
    if is_drive(key):
        if before is not None and value is not None:
            return _changed_options(before, value) <= _ONLINE_DRIVE_OPTIONS
        return "disk" in features and key.startswith(("scsi", "virtio"))
    if key == "memory":
        return "memory" in features
    if key == "balloon":
        # Its target can move, the device itself can be neither plugged nor pulled.
        return (before != "0") == (value != "0")
    return False


def _changed_options(before: str, after: str) -> set[str]:
    """What differs, size apart: it is not an option but a fact. ValueError when a drive is not understood."""
    old, new = values.parse_drive(before), values.parse_drive(after)
    found = {name for name in old.options.keys() | new.options.keys() if old.options.get(name) != new.options.get(name)}
    return found - {"size"} if old.volume == new.volume else {"file"}


def _features(text: str) -> set[str]:
    if text in ("", "1"):
        return {"network", "disk", "usb"}
    return set(text.split(",")) - {"0"}
