# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any

import yaml
from ansible_collections.pvefleet.infra.plugins.doc_fragments.server import ModuleDocFragment as Server

# O(memory) is an option of proxmox_server, not one of proxmox_fleet.
_OPTION = re.compile(r"\bO\(([^)]*)\)")
_ELSEWHERE = r"O(pvefleet.infra.proxmox_server#module:\1)"


def _options(options: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The options of one server as suboptions. They have no defaults: what is not given may be given elsewhere."""
    result = {}
    for name, option in options.items():
        if name in without:
            continue
        result[name] = {key: value for key, value in option.items() if key not in ("default", "required")}
        texts = option["description"]
        texts = [texts] if isinstance(texts, str) else list(texts)
        if "default" in option:
            texts.append(f"V({str(option['default']).lower()}) when it is given nowhere.")
        result[name]["description"] = [_OPTION.sub(_ELSEWHERE, text) for text in texts]
        if "suboptions" in option:
            result[name]["suboptions"] = _options(option["suboptions"])
    return result


_SERVER = yaml.safe_load(Server.DOCUMENTATION)["options"]


class ModuleDocFragment:
    """The options of proxmox_fleet that are made of those of proxmox_server."""

    # Annotated, for ansible-test reads plain assignments as literal texts.
    DOCUMENTATION: str = yaml.safe_dump(
        {
            "options": {
                "servers": {
                    "description": [
                        "The servers, each with the options of M(pvefleet.infra.proxmox_server).",
                        "Names and vmids must not repeat.",
                    ],
                    "type": "list",
                    "elements": "dict",
                    "required": True,
                    "suboptions": _options(_SERVER),
                },
                "defaults": {
                    "description": [
                        "What holds for each server that does not say it itself.",
                        "Dictionaries are merged key by key; lists are not, the server's own replaces the default one.",
                    ],
                    "type": "dict",
                    "suboptions": _options(_SERVER, without=("name", "vmid")),
                },
            }
        },
        sort_keys=False,
    )
