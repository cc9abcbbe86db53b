# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storages, security groups and tasks of something that answers what no Proxmox VE would: an error in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall import converge, read_groups
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.firewall_spec import group_spec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage import converge_storage, list_storages
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage_plan import storage_spec
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.task import TaskSpec, task_info

from tests.unit.conftest import token_client_for
from tests.unit.scripted_https import Answer, Request, ScriptedServer

STRANGE = "gave an answer that is not Proxmox VE's"
NODE = {"type": "node", "node": "pve1", "status": "online"}
GUEST = {"type": "qemu", "vmid": 100, "node": "pve1", "name": "web-01", "status": "stopped"}
TASK = "UPID:pve1:00000001:00000001:65000000:qmstart:100:root@pam:"
RULE = {"pos": 0, "type": "in", "action": "ACCEPT", "enable": 1, "digest": "d"}
# What a cluster answers that has one of each.
GOOD: dict[str, Any] = {
    "/access/permissions": {"/vms": {"VM.Audit": 1}},
    "/nodes": [NODE],
    "/cluster/resources": [NODE, GUEST],
    "/storage": [{"storage": "tank", "type": "dir", "path": "/tank"}],
    "/storage/tank": {"storage": "tank", "type": "dir", "path": "/tank"},
    "/nodes/pve1/storage": [{"storage": "tank", "active": 1, "enabled": 1}],
    "/nodes/pve1/storage/tank/status": {"active": 1, "enabled": 1},
    "/nodes/pve1/qemu": [GUEST],
    "/nodes/pve1/qemu/100/config": {"name": "web-01", "digest": "d"},
    "/nodes/pve1/qemu/100/pending": [{"key": "name", "value": "web-01"}],
    "/nodes/pve1/qemu/100/firewall/rules": [],
    "/nodes/pve1/qemu/100/firewall/options": {},
    "/nodes/pve1/firewall/rules": [],
    "/cluster/firewall/rules": [],
    "/cluster/firewall/options": {},
    "/cluster/firewall/groups": [{"group": "web"}],
    "/cluster/firewall/groups/web": [RULE],
    "/cluster/firewall/macros": [{"macro": "SSH"}],
    "/cluster/firewall/refs": [{"type": "alias", "name": "office"}],
    f"/nodes/pve1/tasks/{TASK}/status": {"status": "stopped", "exitstatus": "OK"},
    "/nodes/pve1/tasks": [],
    f"/nodes/pve1/tasks/{TASK}/log": [{"n": 1, "t": "TASK OK"}],
}
WEB = {"name": "web", "rules": [{"action": "ACCEPT", "macro": "SSH", "source": "office"}], "members": ["web-01"]}
WORK: dict[str, Callable[[PveClient], Any]] = {
    "define": lambda client: converge_storage(client, storage_spec({"name": "tank", "wait_timeout": 0})),
    "remove": lambda client: converge_storage(
        client, storage_spec({"name": "tank", "state": "absent"}), check_mode=True
    ),
    "list": list_storages,
    "group": lambda client: converge(client, group_spec(WEB), check_mode=True),
    "no group": lambda client: converge(client, group_spec({"name": "web", "state": "absent"}), check_mode=True),
    "groups": read_groups,
    "task": lambda client: task_info(client, TaskSpec(TASK)),
}


def unquoted(request: Request) -> str:
    return request.path.partition("?")[0].replace("%3A", ":").replace("%40", "@")


@pytest.mark.parametrize("work", WORK)
def test_an_odd_answer_to_any_question_is_a_sentence(serve: Callable[..., ScriptedServer], work: str) -> None:
    answers = dict(GOOD)
    server = serve(lambda request: Answer(answers[unquoted(request)]))
    client = token_client_for(server)
    WORK[work](client)
    questions = {unquoted(request) for request in server.requests}
    assert questions
    for path in questions:
        answers[path] = [1] if isinstance(GOOD[path], dict) else {"a": 1}
        with pytest.raises((PveError, Unable), match=STRANGE):
            WORK[work](client)
        # What lacks what it should have is taken as it is, or refused.
        if not path.startswith("/nodes/pve1/qemu"):
            answers[path] = {} if isinstance(GOOD[path], dict) else [{}]
            with suppress(PveError, Unable):
                WORK[work](client)
        answers[path] = GOOD[path]
    client.close()
