# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pve_storage and pve_storage_info: through Ansible as it runs them, and their work against the lab."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient, PveForbidden
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage import (
    Result,
    converge_storage,
    list_storages,
    observe,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.storage_plan import (
    BACKENDS,
    BOOLEANS,
    canonical,
    plan,
    storage_spec,
    update_params,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ansible_run import Ansible
from tests.storage_options import task

# As the collection's description prints it.
PRINTED = """
- pvefleet.infra.pve_storage:
    {cluster: prod, name: remote-poka, type: nfs, server: 192.168.3.50, export: /poka, content: [images, rootdir], nodes: [pve2]}
"""  # noqa: E501
NFS: dict[str, Any] = {"name": "remote-poka", "type": "nfs", "server": "192.168.3.50", "export": "/poka"}
MISSING = "Unable to define storage"

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def client(lab: Any) -> PveClient:
    return PveClient(lab.connection())


def converge(client: PveClient, *, check: bool = False, **options: Any) -> Result:
    return converge_storage(client, storage_spec(task(**options)), check_mode=check)


def writes(lab: Any, mark: int = 0) -> list[tuple[str, str]]:
    return [(method, path) for method, path in lab.requests[mark:] if method != "GET" and path != "/access/ticket"]


def test_example_as_printed(tmp_path: Path, lab: Any) -> None:
    ansible = Ansible(tmp_path, lab)
    (example,) = yaml.safe_load(PRINTED)
    secret = {"name": "pbs", "type": "pbs", "server": "192.0.2.7", "settings": {"datastore": "main"}}
    foretold, made, again, shown, kept, astray = ansible.tasks(
        [
            {**example, "check_mode": True},
            example,
            example,
            {"pvefleet.infra.pve_storage_info": {"name": "remote-poka"}},
            {"pvefleet.infra.pve_storage": {**secret, "secrets": {"password": "unforgettable-7"}}},
            {"pvefleet.infra.pve_storage": {**secret, "settings": {"password": "unforgettable-8"}}},
        ],
        "--diff",
        "-vvv",
    )
    assert not foretold.get("failed"), foretold
    assert (foretold["changed"], made["changed"], again["changed"]) == (True, True, False)
    assert foretold["diff"] == made["diff"]
    assert made["storage"] == {**foretold["storage"], "status": made["storage"]["status"]}
    assert again["storage"] == made["storage"] == shown["storages"][0]
    assert made["storage"] == {
        "name": "remote-poka",
        "type": "nfs",
        "content": ["images", "rootdir"],
        "nodes": ["pve2"],
        "enabled": True,
        "shared": True,
        "settings": {"server": "192.168.3.50", "export": "/poka", "path": "/mnt/pve/remote-poka"},
        "status": [{"node": "pve2", "state": "active", "total": 100 * 2**30, "used": 0, "available": 100 * 2**30}],
    }
    assert kept["changed"]
    assert kept["diff"]["after"]["password"] == "(secret)"
    assert "settings.password: belongs into secrets" in astray["msg"]
    assert "unforgettable" not in str([kept, astray])


MADE: list[dict[str, Any]] = [
    NFS,
    {"name": "tank", "type": "zfspool", "pool": "tank/guests", "sparse": True, "blocksize": "16k", "nodes": ["pve1"]},
    {"name": "thick", "type": "lvm", "vgname": "vg0", "shared": True, "content": ["rootdir", "images"]},
    {"name": "thin", "type": "lvmthin", "vgname": "vg0", "thinpool": "data", "disable": False},
    {
        "name": "files",
        "type": "dir",
        "path": "/srv/files/",
        "content": ["backup", "iso"],
        "is_mountpoint": "True",
        "mkdir": False,
        "preallocation": "off",
        "prune_backups": {"keep-daily": 7, "keep-last": "3"},
    },
    {"name": "rbd", "type": "rbd", "settings": {"pool2": None, "monhost": ["192.0.2.1", "192.0.2.2"], "krbd": "yes"}},
    {"name": "win", "type": "cifs", "settings": {"share": "vm", "subdir": "/a"}, "server": "192.0.2.8"},
]


@pytest.mark.parametrize("options", MADE, ids=[str(options["type"]) for options in MADE])
def test_each_backend(client: PveClient, lab: Any, options: dict[str, Any]) -> None:
    """Foretold, made, and nothing to do the second time."""
    foretold = converge(client, check=True, **options)
    assert writes(lab) == []
    made = converge(client, **options)
    assert writes(lab) == [("POST", "/storage")]
    assert foretold.plan == made.plan
    assert foretold.storage is not None
    assert made.storage is not None
    assert made.storage == {**foretold.storage, "status": made.storage["status"]}
    again = converge(client, **options)
    assert (again.plan.changed, again.storage) == (False, made.storage)
    assert len(writes(lab)) == 1


def test_changes_and_clearing(client: PveClient, lab: Any) -> None:
    base = {**NFS, "options": "vers=4.2", "nodes": ["pve2"], "content": ["images", "backup"]}
    converge(client, **base, prune_backups={"keep-last": 3}, settings={"bwlimit": "clone=1024"})
    steps: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
        ({"content": ["backup", "images"], "nodes": ["pve2", "pve2"]}, {}, {}),
        ({"nodes": ["pve1", "pve2"]}, {"nodes": "pve2"}, {"nodes": "pve1,pve2"}),
        ({"nodes": []}, {"nodes": "pve1,pve2"}, {}),
        ({"content": []}, {"content": "backup,images"}, {"content": "images"}),
        ({"prune_backups": {"keep-last": 3}}, {}, {}),
        ({"prune_backups": {}}, {"prune-backups": "keep-last=3"}, {}),
        ({"options": ""}, {"options": "vers=4.2"}, {}),
        ({"settings": {"bwlimit": None}}, {"bwlimit": "clone=1024"}, {}),
        ({"export": "/poka/", "disable": False}, {}, {}),
        ({"disable": True}, {}, {"disable": "1"}),
    ]
    for options, before, after in steps:
        mark = len(lab.requests)
        foretold = converge(client, check=True, name="remote-poka", **options)
        made = converge(client, name="remote-poka", **options)
        diff = made.plan.diff()
        assert (diff["before"], diff["after"]) == (before, after)
        assert foretold.plan == made.plan
        assert foretold.storage is not None
        assert made.storage == {**foretold.storage, "status": (made.storage or {})["status"]}
        assert not converge(client, name="remote-poka", **options).plan.changed
        assert writes(lab, mark) == ([("PUT", "/storage/remote-poka")] if before or after else [])
    assert not (made.storage or {})["enabled"]
    assert (made.storage or {})["status"] == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "1st"}, "name: '1st' is not a storage id"),
    ({"name": "new"}, f"{MISSING} new: there is none, and a new one needs a type"),
    ({"name": "new", "type": "nfs", "server": "192.0.2.1"}, f"{MISSING} new: type nfs needs export"),
    ({"name": "new", "type": "lvmthin"}, f"{MISSING} new: type lvmthin needs vgname and thinpool"),
    ({"name": "new", "type": "zfspool", "pool": "x", "path": "/x"}, "path: does not go with type zfspool, which takes"),
    (
        {"name": "new", "type": "zfspool", "pool": "x", "content": ["iso"]},
        "content: type zfspool does not hold iso, only images, rootdir",
    ),
    ({"name": "local-lvm", "content": ["backup"]}, "content: type lvmthin does not hold backup, only images, rootdir"),
    ({"name": "new", "type": "dir", "path": "/x", "content": ["none", "iso"]}, "content: none stands alone"),
    ({**NFS, "nodes": ["pve1", "pve9"]}, f"{MISSING} remote-poka: there is no node pve9, only pve1, pve2"),
    ({**NFS, "nodes": ["pve1;pve2"]}, "nodes: 'pve1;pve2' is more than one item"),
    ({**NFS, "nodes": ["a/b"]}, "nodes: 'a/b' is not the name of a node"),
    ({**NFS, "settings": {"nodes": "pve1"}}, "settings.nodes: is the module's option nodes"),
    ({**NFS, "settings": {"prune-backups": "x"}}, "settings.prune-backups: is the module's option prune_backups"),
    ({**NFS, "settings": {"keyring": "x"}}, "settings.keyring: belongs into secrets, whose values are never shown"),
    ({**NFS, "settings": {"digest": "x"}}, "settings.digest: is no property of a storage"),
    ({**NFS, "settings": {"krbd": "maybe"}}, "krbd: 'maybe' is neither true nor false"),
    ({**NFS, "settings": {"a": {"b": "c"}}}, "a: must be a text, a number, a boolean or a list"),
    ({**NFS, "secrets": {"pasword": "x"}}, "secrets: unknown secret pasword; known are encryption-key, keyring"),
    ({**NFS, "secrets": {"password": ""}}, "secrets.password: must be a text that is not empty"),
    ({**NFS, "prune_backups": {"keep": 3}}, "prune-backups: unknown rule keep; known are keep-all, keep-daily"),
    ({**NFS, "prune_backups": {"keep-last": "all"}}, "prune-backups: keep-last must be a number"),
    ({**NFS, "prune_backups": {"keep-all": True, "keep-last": 1}}, "prune-backups: keep-all stands alone"),
    ({**NFS, "prune_backups": {"keep_last": 1, "keep-last": 2}}, "prune-backups: keep-last is given twice"),
    ({**NFS, "wait_timeout": -1}, "wait_timeout: cannot be negative"),
    ({"name": "shared", "type": "dir", "path": "/x"}, "its type is nfs and not dir, which cannot be changed"),
    ({"name": "shared", "server": "192.0.2.1"}, "its server is 192.0.2.9 and not 192.0.2.1, which cannot be changed"),
    ({"name": "shared", "export": "/other"}, "its export is /srv/shared and not /other, which cannot be changed"),
    ({"name": "local-lvm", "thinpool": ""}, "its thinpool is data and not empty, which cannot be changed"),
    ({**NFS, "settings": {"frobnicate": 1}}, "frobnicate: property is not defined in schema"),
    (
        {"name": "local-lvm", "state": "absent"},
        "Unable to remove storage local-lvm: the configuration of debian-12-cloud (9000) refers to it",
    ),
]


@pytest.mark.parametrize(("options", "complaint"), WRONG)
def test_wrong_input_is_one_sentence(client: PveClient, lab: Any, options: dict[str, Any], complaint: str) -> None:
    before = {name: dict(store) for name, store in lab.pve.storages.items()}
    with pytest.raises(Unable) as refused:
        converge(client, **options)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)
    # a property that nobody knows is for PVE to refuse
    assert writes(lab) == ([("POST", "/storage")] if "frobnicate" in complaint else [])
    assert lab.pve.storages == before


def test_secrets_are_sent_and_never_read(client: PveClient, lab: Any) -> None:
    options = {"name": "pbs", "type": "pbs", "server": "192.0.2.7", "settings": {"datastore": "main"}}
    made = converge(client, **options, secrets={"password": "unforgettable-7"})
    assert "unforgettable" not in str(made)
    assert not converge(client, **options, secrets={"password": "unforgettable-8"}).plan.changed
    lab.do(lab.pve.lose_answer, "PUT", "/storage/pbs")
    renewed = converge(client, **options, secrets={"password": "unforgettable-8"}, update_secrets="always")
    assert renewed.plan.changed
    assert "unforgettable" not in str(renewed)
    # the answer to the first was lost, and what cannot be read back is sent again
    assert writes(lab) == [("POST", "/storage"), ("PUT", "/storage/pbs"), ("PUT", "/storage/pbs")]


def test_waits_for_each_node(client: PveClient, lab: Any) -> None:
    """pve1 has it at once, pve2 after a while: what counts is each node's own word."""
    lab.do(lab.pve.set_storage_unreachable, "remote-poka", ["pve2"])
    heal = threading.Timer(0.3, lambda: lab.do(lab.pve.set_storage_reachable, "remote-poka"))
    heal.start()
    made = converge(client, **NFS, wait_timeout=20)
    heal.join()
    assert {status["node"]: status["state"] for status in (made.storage or {})["status"]} == {
        "pve1": "active",
        "pve2": "active",
    }


def test_says_which_node_has_what(client: PveClient, lab: Any) -> None:
    lab.do(lab.pve.set_storage_unreachable, "remote-poka", ["pve2"])
    with pytest.raises(Unable) as failed:
        converge(client, **NFS, wait_timeout=0)
    assert str(failed.value) == (
        "Unable to activate storage remote-poka: it is defined, but after 0 s it is active on pve1, inactive on pve2;"
        " the node's system log says why"
    )
    # the second run defines nothing, and does not call it well either
    mark = len(lab.requests)
    with pytest.raises(Unable, match="inactive on pve2"):
        converge(client, **NFS, wait_timeout=0)
    assert writes(lab, mark) == []
    unwaited = converge(client, **NFS, wait=False)
    assert (unwaited.plan.changed, (unwaited.storage or {})["status"]) == (False, [])
    assert not converge(client, **NFS, nodes=["pve1"], wait_timeout=0).plan.diff()["before"]


def test_nodes_that_are_offline(client: PveClient, lab: Any) -> None:
    lab.do(lab.pve.set_node_offline, "pve2")
    with pytest.raises(Unable, match="node pve2 is offline, so that it cannot become active there"):
        converge(client, **NFS, nodes=["pve1", "pve2"])
    assert writes(lab) == []
    made = converge(client, **NFS)
    assert [status["node"] for status in (made.storage or {})["status"]] == ["pve1"]
    (shown,) = list_storages(client, name="remote-poka")
    assert {status["node"]: status["state"] for status in shown["status"]} == {"pve1": "active", "pve2": "unknown"}
    with pytest.raises(Unable, match="there is no node pve7, only pve1, pve2"):
        list_storages(client, node="pve7")


def test_removal(client: PveClient, lab: Any) -> None:
    converge(client, **NFS)
    gone = {"name": "remote-poka", "state": "absent"}
    foretold = converge(client, check=True, **gone)
    assert writes(lab) == [("POST", "/storage")]
    made = converge(client, **gone)
    assert foretold == made
    assert (made.storage, made.plan.diff()["before"]["type"]) == (None, "nfs")
    assert not converge(client, **gone).plan.changed
    assert writes(lab) == [("POST", "/storage"), ("DELETE", "/storage/remote-poka")]


def test_removal_looks_at_guests(client: PveClient, lab: Any) -> None:
    """Pending disks, unused ones and files of cloud-init count; names that merely begin alike do not."""
    for name in ("extra", "extra-2"):
        converge(client, name=name, type="dir", path=f"/srv/{name}", content=["images", "snippets"])
    for vmid, options in {
        101: {"scsi0": "extra:1", "name": "web-01"},
        102: {"cicustom": "vendor=extra:snippets/vendor.yml"},
        103: {"scsi0": "extra-2:1", "description": "extra:1"},
        104: {"hotplug": "0", "name": "soon"},
    }.items():
        client.run("POST", "/nodes/pve1/qemu", {"vmid": vmid, **options}, timeout=10)
    client.run("POST", "/nodes/pve1/qemu/104/status/start", timeout=10)
    client.put("/nodes/pve1/qemu/104/config", {"scsi0": "extra:1"})
    assert "scsi0" not in lab.vm(104).config
    client.put("/nodes/pve1/qemu/101/config", {"delete": "scsi0"})
    assert any(key.startswith("unused") for key in lab.vm(101).config)
    gone = {"name": "extra", "state": "absent"}
    with pytest.raises(Unable) as refused:
        converge(client, **gone)
    assert str(refused.value) == (
        "Unable to remove storage extra: the configuration of 102, soon (104), web-01 (101) refers to it; move the"
        " disks away first, or use force, which leaves them where they are"
    )
    lab.do(lab.pve.set_node_offline, "pve1")
    with pytest.raises(Unable, match=r"whether 101, 102, 103, 104, 9000 use it is not known, for pve1 is offline"):
        converge(client, **gone)
    lab.do(lab.pve.set_node_offline, "pve1", False)
    volumes = dict(lab.pve.storages["extra"]["volumes"])
    assert volumes
    assert converge(client, **gone, force=True).plan.changed
    assert "extra" not in lab.pve.storages


def test_removal_looks_at_guests_of_every_node(client: PveClient, lab: Any) -> None:
    """One that the storage is not for any more still has its disk there."""
    converge(client, name="extra", type="dir", path="/srv/extra", content=["images"])
    client.run("POST", "/nodes/pve1/qemu", {"vmid": 101, "scsi0": "extra:1", "name": "web-01"}, timeout=10)
    converge(client, name="extra", nodes=["pve2"], force=True)
    with pytest.raises(Unable, match=r"Unable to remove storage extra: the configuration of web-01 \(101\) refers"):
        converge(client, name="extra", state="absent")
    assert "extra" in lab.pve.storages


@pytest.mark.parametrize("wish", [{"state": "absent"}, {"disable": True}, {"nodes": ["pve2"]}])
def test_who_may_not_see_all_guests_cannot_tell_who_uses_it(lab: Any, wish: dict[str, Any]) -> None:
    lab.do(lab.pve.add_user, "stor@pve", "secret-77", ("Datastore.Allocate", "Datastore.Audit"), "/storage")
    lab.do(lab.pve.grant, "stor@pve", "/nodes", "Sys.Audit")
    blind = PveClient(lab.connection(user="stor@pve", password="secret-77", token_id=None, token_secret=None))
    with pytest.raises(Unable, match=r"storage local-lvm: stor@pve needs VM.Audit on /vms to see every guest"):
        converge(blind, name="local-lvm", **wish)
    assert writes(lab) == []
    blind.close()


def test_a_storage_in_use_is_not_taken_away(client: PveClient, lab: Any) -> None:
    """Neither disabled nor taken off the node of a guest; what is so already is no change, and does not count."""
    user = r"the configuration of debian-12-cloud \(9000\) refers to it"
    for check in (True, False):
        with pytest.raises(Unable, match=f"Unable to disable storage local-lvm: {user}"):
            converge(client, name="local-lvm", disable=True, check=check)
        with pytest.raises(Unable, match=f"Unable to take node pve1 off storage local-lvm: {user}"):
            converge(client, name="local-lvm", nodes=["pve2"], check=check)
    assert writes(lab) == []
    assert converge(client, name="local-lvm", nodes=["pve1"]).plan.changed  # nobody uses it on pve2
    assert converge(client, name="local-lvm", disable=True, force=True).plan.changed
    assert not converge(client, name="local-lvm", disable=True, nodes=["pve1"]).plan.changed


def test_both_spellings_of_what_is_kept(client: PveClient, lab: Any) -> None:
    assert converge(client, **NFS, prune_backups={"keep_last": 3, "keep-daily": 7}).plan.changed
    assert lab.pve.storages["remote-poka"]["prune-backups"] == "keep-daily=7,keep-last=3"
    assert not converge(client, **NFS, prune_backups={"keep-last": 3, "keep_daily": 7}).plan.changed


def test_somebody_else_changes_it_meanwhile(client: PveClient, lab: Any) -> None:
    converge(client, **NFS)

    def meddle() -> None:
        lab.pve.storages["local"]["content"] = "iso"

    lab.do(lab.pve.interpose, "PUT", "/storage/remote-poka", meddle)
    assert converge(client, **NFS, content=["backup"]).plan.changed
    assert lab.pve.storages["remote-poka"]["content"] == "backup"
    for other in ("backup,iso", "backup"):
        lab.do(
            lab.pve.interpose,
            "PUT",
            "/storage/remote-poka",
            lambda other=other: lab.pve.storages["local"].update(content=other),
        )
    with pytest.raises(Unable, match="detected modified configuration - file changed by other user"):
        converge(client, **NFS, content=["images"])
    assert lab.pve.storages["remote-poka"]["content"] == "backup"


@pytest.mark.parametrize(("status", "method"), [(None, "POST"), (596, "POST"), (596, "PUT"), (None, "DELETE")])
def test_an_answer_that_is_lost(client: PveClient, lab: Any, status: int | None, method: str) -> None:
    """What has happened is found out, and not done again."""
    wanted: dict[str, Any] = {**NFS, "content": ["backup"]}
    if method != "POST":
        converge(client, **NFS)
    if method == "DELETE":
        wanted = {"name": "remote-poka", "state": "absent"}
    mark = len(lab.requests)
    lab.do(lab.pve.lose_answer, method, "/storage" if method == "POST" else "/storage/remote-poka", status)
    assert converge(client, **wanted).plan.changed
    assert [used for used, _path in writes(lab, mark)] == [method]
    assert not converge(client, **wanted).plan.changed


def test_a_storage_of_another_kind_made_meanwhile(client: PveClient, lab: Any) -> None:
    """The name was taken between the look and the call: not ours, and not touched."""
    other = {"type": "dir", "path": "/x", "content": "iso", "active": 1, "files": set(), "volumes": {}}
    lab.do(lab.pve.interpose, "POST", "/storage", lambda: lab.pve.storages.update({"remote-poka": other}))
    with pytest.raises(Unable, match="its type is dir and not nfs, which cannot be changed"):
        converge(client, **NFS)
    assert lab.pve.storages["remote-poka"] is other


def test_the_same_storage_made_meanwhile(client: PveClient, lab: Any) -> None:
    """Two runs at once: the second one finds what the first has made, and adds what it lacks."""
    second = PveClient(lab.connection())
    lab.do(lab.pve.interpose, "POST", "/storage", lambda: asyncio.to_thread(converge, second, **NFS, wait=False))
    made = converge(client, **NFS, content=["backup"])
    assert made.plan.diff()["after"] == {"content": "backup"}
    assert writes(lab) == [("POST", "/storage"), ("POST", "/storage"), ("PUT", "/storage/remote-poka")]


def test_infos(client: PveClient, lab: Any) -> None:
    converge(client, name="tank", type="zfspool", pool="tank", nodes=["pve2"], disable=True)

    def names(**filters: Any) -> list[str]:
        return [storage["name"] for storage in list_storages(client, **filters)]

    mark = len(lab.requests)
    assert names() == ["local", "local-lvm", "shared", "tank"]
    assert len(lab.requests) - mark == 2 + len(lab.nodes), "one call a node, not one a storage"
    assert names(kind="lvmthin") == ["local-lvm"]
    assert names(content="images") == ["local-lvm", "shared", "tank"]
    assert names(node="pve1") == ["local", "local-lvm", "shared"]
    assert names(name="nothing") == []
    (tank,) = list_storages(client, name="tank")
    assert (tank["enabled"], tank["nodes"], [status["state"] for status in tank["status"]]) == (
        False,
        ["pve2"],
        ["disabled"],
    )
    auditor = PveClient(lab.connection(user=lab.auditor, password=lab.auditor_password, token_id=None))
    assert [storage["name"] for storage in list_storages(auditor)] == names()
    with pytest.raises(PveForbidden, match=r"Datastore\.Allocate"):
        converge(auditor, **NFS)


# ------------------------------------------------------------------- generated

KINDS = sorted(kind for kind, backend in BACKENDS.items() if backend.accepts is not None)
words = st.text("abcdefghijklmnop", min_size=1, max_size=6)


@st.composite
def definitions(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """The options of a definition of this type, some of them."""
    backend = BACKENDS[kind]
    accepts = backend.accepts or frozenset()
    options: dict[str, Any] = {
        key: f"/{draw(words)}" if key in ("path", "export") else kind for key in backend.required
    }
    content = sorted(set(backend.content) - {"none"})
    for key, values in {
        "content": st.lists(st.sampled_from(content), max_size=4),
        "nodes": st.lists(st.sampled_from(["pve1", "pve2"]), max_size=3),
        "prune-backups": st.dictionaries(st.sampled_from(["keep-last", "keep-daily"]), st.integers(0, 99)),
        **{flag: st.booleans() for flag in ("disable", "shared", "sparse", "mkdir")},
    }.items():
        if key in accepts and draw(st.booleans()):
            options[key.replace("-", "_")] = draw(values)
    return options


def applied(current: dict[str, Any], params: dict[str, str]) -> dict[str, Any]:
    """What PVE makes of a PUT."""
    cleared = [key for key in params.get("delete", "").split(",") if key]
    kept = {key: value for key, value in current.items() if key not in cleared}
    after = {**kept, **{key: value for key, value in params.items() if key != "delete"}}
    return {"content": ",".join(BACKENDS[current["type"]].default), **after}


@settings(deadline=None)  # the machine may be busy
@given(st.data())
def test_a_plan_is_exactly_what_is_missing(data: st.DataObject) -> None:
    """From any definition to any other of the same type and place: carried out, nothing is left to do."""
    kind = data.draw(st.sampled_from(KINDS))
    first = data.draw(definitions(kind))
    second = {**data.draw(definitions(kind)), **{key: first[key] for key in BACKENDS[kind].required}}
    start = storage_spec(task(name="x1", type=kind, **first))
    current = applied({"storage": "x1", "type": kind}, {k: v for k, v in start.wanted.items() if v != ""})
    assert not plan(current, start).changed
    spec = storage_spec(task(name="x1", type=kind, **second))
    planned = plan(current, spec)
    after = applied(current, update_params(planned.changes, spec))
    assert not plan(after, spec).changed
    untouched = current.keys() - spec.wanted.keys()
    assert {key: after[key] for key in untouched} == {key: current[key] for key in untouched}


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(sorted(BOOLEANS)), st.sampled_from([True, 1, "1", "yes", "True", "ON"]))
def test_all_ways_to_say_yes_are_one(key: str, value: Any) -> None:
    assert canonical(key, value) == "1"


@settings(deadline=None)  # the machine may be busy
@given(st.text(), st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.lists(st.text())))
def test_odd_settings_are_taken_or_refused(key: str, value: Any) -> None:
    """Never anything but Unable; and what is taken is canonical for good."""
    with suppress(Unable):
        spec = storage_spec(task(name="x1", type="esxi", settings={key: value}))
        assert canonical(key, spec.wanted[key]) == spec.wanted[key]


def test_observing_nothing(client: PveClient) -> None:
    assert observe(client, "nothing") is None
