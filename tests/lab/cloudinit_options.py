# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Which config options are cloud-init's. Pure functions."""

from __future__ import annotations

import re

OPTIONS = frozenset(
    ["cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys"],
)
IPCONFIG = re.compile(r"ipconfig\d+")
# Not cloud-init options, but written into its image too.
ALSO_WRITTEN = re.compile(r"name|net\d+")


def is_cloudinit_option(key: str) -> bool:
    return key in OPTIONS or IPCONFIG.fullmatch(key) is not None


def image_values(config: dict[str, object]) -> dict[str, str]:
    """The values of a config that a cloud-init image is made of."""
    return {key: str(value) for key, value in config.items() if is_cloudinit_option(key) or ALSO_WRITTEN.fullmatch(key)}
