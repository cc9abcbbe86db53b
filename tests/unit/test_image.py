# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a storage and of a node's tasks, of servers that answer what no Proxmox VE would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveUnreachable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.image import (
    disk_size,
    find_file,
    fingerprint,
    import_source,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.node_tasks import wait_for_active
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.template_plan import ImageSpec

from tests.unit.conftest import client_for, token_client_for
from tests.unit.scripted_https import TICKET, Answer, ScriptedServer

IMAGE = ImageSpec("local", "rocky-9.qcow2")
ISO = ImageSpec("local", "rocky-9.iso")
STRANGE = "gave an answer that is not Proxmox VE's"


@pytest.mark.parametrize("odd", [None, "x", 5, {}, [None], ["x"], [[]]])
def test_a_list_that_is_none(serve: Callable[..., ScriptedServer], odd: Any) -> None:
    client = token_client_for(serve(lambda request: Answer(odd)))
    with pytest.raises(PveUnreachable, match=STRANGE):
        find_file(client, IMAGE, "pve1")
    with pytest.raises(PveUnreachable, match=STRANGE):
        wait_for_active(client, "pve1", 1)


@pytest.mark.parametrize("odd", [None, "x", 5, [], [{}]])
def test_properties_that_are_none(serve: Callable[..., ScriptedServer], odd: Any) -> None:
    server = serve(lambda request: Answer(TICKET if request.path == "/access/ticket" else odd))
    with pytest.raises(PveUnreachable, match=STRANGE):
        disk_size(client_for(server), IMAGE.volid, "pve1")
    with pytest.raises(PveUnreachable, match=STRANGE):
        import_source(client_for(server), ISO, "pve1", "rocky-9")


def test_rows_that_lack_what_is_looked_at(serve: Callable[..., ScriptedServer]) -> None:
    client = token_client_for(serve(lambda request: Answer([{}, {"volid": IMAGE.volid}])))
    row = find_file(client, IMAGE, "pve1")
    assert row is not None
    assert fingerprint(row) is None
    with pytest.raises(PveUnreachable, match=STRANGE):
        wait_for_active(client, "pve1", 1)
