# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""proxmox_server and proxmox_server_info as users run them: through Ansible, against the lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import ServerError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_converge import converge
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import SpecError, server_spec

from tests.ansible_run import Ansible
from tests.server_options import KEY

# As the collection's description prints it; only the key is a real one.
PRINTED = """
- pvefleet.infra.proxmox_server:
    cluster: prod
    name: app-1
    clone: {template: rocky-9, full: true, storage: local-lvm}
    cores: 2
    memory: 2048
    disks: {scsi0: {size: 10G}, scsi1: {storage: local-lvm, size: 4G, ssd: true}}
    nics: {net0: {bridge: vmbr0}, net1: {bridge: vmbr0, vlan: 20, firewall: true}}
    cloud_init: {user: ops, ssh_keys: ["..."], ipconfig: {net0: "ip=10.0.0.5/24,gw=10.0.0.1"}, nameservers: [10.0.0.1]}
    tags: [blue, web]
    power_cycle: when_needed
    state: started
"""


@pytest.fixture
def ansible(tmp_path: Path, lab: Any) -> Ansible:
    return Ansible(tmp_path, lab)


def server(**options: Any) -> dict[str, Any]:
    return {"pvefleet.infra.proxmox_server": options}


def info(**options: Any) -> dict[str, Any]:
    return {"pvefleet.infra.proxmox_server_info": options}


def writes(lab: Any, mark: int = 0) -> list[tuple[str, str]]:
    return [(method, path) for method, path in lab.requests[mark:] if method != "GET" and path != "/access/ticket"]


def test_example_as_printed(ansible: Ansible, lab: Any) -> None:
    lab.add_template(9001, "rocky-9", "pve1")
    (example,) = yaml.safe_load(PRINTED.replace("...", f"{KEY} ops@example.com"))
    foretold, made, again = ansible.tasks([{**example, "check_mode": True}, example, example], "--diff")
    assert not foretold.get("failed"), foretold
    assert foretold["changed"]
    assert foretold["diff"] == made["diff"]
    assert foretold["server"] == {**made["server"], "vmid": None}
    assert made["server"] == {
        "vmid": 100,
        "name": "app-1",
        "node": "pve1",
        "status": "running",
        "ip_addresses": ["10.0.0.5"],
        "pending": [],
    }
    assert not again["changed"]
    assert again["server"] == made["server"]
    config = lab.vm(100).config
    assert config["tags"] == "blue;web"
    assert config["net1"].endswith("bridge=vmbr0,firewall=1,tag=20") or "tag=20" in config["net1"]
    assert "size=10G" in config["scsi0"]
    assert "ssd=1" in config["scsi1"]


def test_all_states_and_both_infos(ansible: Ansible, lab: Any) -> None:
    base = {"name": "web-01", "clone": {"template": "debian-12-cloud"}}
    results = ansible.tasks(
        [
            server(**base, state="present"),
            server(**base, state="started", wait_for_address=True),
            info(name="web-01"),
            server(name="web-01", state="restarted", memory=1024, shutdown_timeout=30),
            server(name="web-01", state="started", cores=4),
            server(name="web-01", state="started", cores=4, power_cycle="when_needed"),
            server(name="web-01", state="stopped"),
            server(name="web-01", state="stopped"),
            info(vmid=100),
            server(name="web-01", vmid=100, state="absent"),
            server(name="web-01", state="absent"),
            info(name="web-01"),
            info(),
        ]
    )
    assert not any(result.get("failed") for result in results), results
    assert [result["changed"] for result in results] == [
        True, True, False, True, True, True, True, False, False, True, False, False, False,
    ]  # fmt: skip
    (shown,) = results[2]["servers"]
    assert (shown["status"], shown["config"]["name"]) == ("running", "web-01")
    assert results[1]["server"]["ip_addresses"] == shown["ip_addresses"] == ["10.64.0.102"]
    assert results[4]["server"]["pending"] == ["cores"]
    assert results[5]["server"]["pending"] == []
    assert results[8]["servers"][0]["config"]["memory"] == "1024"
    assert results[9]["server"]["status"] == "absent"
    assert results[11]["servers"] == []
    assert [row["vmid"] for row in results[12]["servers"]] == [lab.template_vmid]


CLONE = {"template": "debian-12-cloud"}
NEW = {"name": "new-1", "clone": CLONE}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({**NEW, "disks": {"scsi0": {"sice": "10G"}}}, "disks.scsi0: unknown option sice; known are size"),
    ({**NEW, "nics": {"net0": {"brigde": "vmbr0"}}}, "nics.net0: unknown option brigde; known are model"),
    ({**NEW, "disks": {"scsi0": {"size": "10 gigs"}}}, "disks.scsi0.size: '10 gigs' is not a size"),
    ({**NEW, "nics": {"net0": {"bridge": "vmbr7"}}}, "to vmbr7: node pve1 has only the bridges vmbr0, vmbr1"),
    (
        {**NEW, "disks": {"scsi1": {"size": "1G", "storage": "nope"}}},
        "on nope: node pve1 has only local, local-lvm",
    ),
    ({**NEW, "disks": {"scsi1": {"size": "1G", "storage": "local"}}}, "on local: it does not take disk images"),
    ({**NEW, "pool": "nope"}, "pool 'nope' does not exist"),
    ({**NEW, "clone": {"template": "nope"}}, "Unable to create server new-1: there is no template nope"),
    ({**NEW, "clone": {"template": "9999"}}, "there is no template 9999"),
    ({**NEW, "clone": {"template": "302"}}, "Unable to create server new-1: 302 is a container"),
    ({**NEW, "clone": {"template": "300", "full": False}}, "twin is not a template, only full: true can clone it"),
    ({**NEW, "clone": {**CLONE, "storage": "nope"}}, "on nope: node pve1 has only"),
    ({**NEW, "node": "pve9"}, "there is no node pve9, only pve1, pve2"),
    ({**NEW, "node": "pve2"}, "local-lvm is not shared"),
    ({**NEW, "disks": {"scsi0": {"size": "2G"}}}, "from 3G to 2G: PVE disks cannot shrink"),
    ({**NEW, "cores": 0}, "cores: 0 is not between"),
    ({"name": "new-1"}, "there is none, and nothing says what it should be"),
    ({"name": "new-1", "memory": 1024}, "give its node, one of pve1, pve2"),
    ({"vmid": 777, "memory": 1024}, "a new server needs a name"),
    ({"name": "new-1", "create": False, "memory": 1024}, "Unable to manage server new-1: there is none"),
    ({"name": "twin"}, "which server twin is meant: 300, 301 have that name; give the vmid"),
    ({"name": "other", "vmid": 300}, "300 is named twin; say rename: true"),
    (
        {"name": "twin", "vmid": 400, "clone": CLONE},
        "Unable to take server 400 for twin: that is the name of 300, 301",
    ),
    ({"vmid": 302, "memory": 1024}, "Unable to manage server 302: it is a container"),
    ({"name": "debian-12-cloud", "cores": 4}, "9000 is a template"),
    ({"name": "debian-12-cloud", "state": "absent"}, "Unable to remove server debian-12-cloud: 9000 is a template"),
    ({"name": "other", "vmid": 300, "state": "absent"}, "Unable to remove server other: 300 is named twin"),
    ({"vmid": 300, "boot_order": ["scsi0"]}, "Unable to boot server 300 from scsi0: it has no such device"),
    ({"vmid": 300, "node": "pve2"}, "Unable to move server 300 from pve1 to pve2"),
]


@pytest.fixture
def neighbours(lab: Any) -> int:
    """Two servers of one name and a container; the number of requests so far."""
    lab.do(lab.pve.add_vm, 300, "twin", node="pve1")
    lab.do(lab.pve.add_vm, 301, "twin", node="pve2")
    lab.do(lab.pve.add_ct, 302, "box", node="pve1")
    lab.do(lab.pve.settle_resources)
    return len(lab.requests)


def test_what_is_wrong_is_one_sentence_and_nothing_is_changed(lab: Any, neighbours: int) -> None:
    client = PveClient(lab.connection(default_storage="local-lvm"))
    for options, complaint in WRONG:
        for check_mode in (True, False):
            with pytest.raises((SpecError, ServerError)) as caught:
                converge(client, server_spec({"state": "present", **options}), check_mode=check_mode)
            assert complaint in str(caught.value)
            assert "\n" not in str(caught.value)
    client.close()
    assert not writes(lab, neighbours)


def test_what_is_wrong_is_told_by_the_module(ansible: Ansible, lab: Any, neighbours: int) -> None:
    """A few of each kind: refused by the argument specification, by ours, by the plan, by a look at the cluster."""
    wrong = [
        ({"cores": 1}, "one of the following is required: name, vmid"),
        ({"name": "new-1", "cluster": "nope"}, "nope"),
        ({**NEW, "clone": {"template": "9000", "fool": True}}, "Unsupported parameters"),
        *WRONG[::5],
    ]
    task = {"pvefleet.infra.proxmox_server": "{{ item }}", "loop": "{{ wrong }}"}
    (looped,) = ansible.tasks([task], wrong=[options for options, _words in wrong])
    assert len(looped["results"]) == len(wrong)
    for result, (options, complaint) in zip(looped["results"], wrong, strict=True):
        assert result.get("failed"), options
        assert complaint in result["msg"], (complaint, result["msg"])
    assert not writes(lab, neighbours)


def test_secrets_are_not_told(ansible: Ansible, lab: Any) -> None:
    secret = "unforgettable-7"
    task = server(name="web-01", clone={"template": "debian-12-cloud"}, cloud_init={"user": "ops", "password": secret})
    book = yaml.safe_dump(
        [
            {
                "hosts": "localhost",
                "gather_facts": False,
                "module_defaults": {"group/pvefleet.infra.proxmox": {"cluster": "prod"}},
                "tasks": [task],
            }
        ]
    )
    (ansible.folder / "secret.yml").write_text(book)
    run = ansible.playbook("secret.yml", "-vvv", "--diff")
    assert run.returncode == 0, run.output
    assert secret not in run.output
    assert lab.password not in run.output
    assert lab.vm(100).config["cipassword"].startswith("$5$")


def test_by_token_and_fingerprint_without_a_registry(ansible: Ansible, lab: Any) -> None:
    single = {
        "api_host": lab.api_endpoint,
        "api_token_id": lab.token_id,
        "api_token_secret": lab.token_secret,
        "tls_fingerprint": lab.fingerprint,
    }
    book = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "module_defaults": {"group/pvefleet.infra.proxmox": single},
            "tasks": [server(name="web-01", node="pve2", memory=512, nics={"net0": {"bridge": "vmbr0"}}), info()],
        }
    ]
    (ansible.folder / "single.yml").write_text(yaml.safe_dump(book))
    run = ansible.playbook("single.yml")
    assert (run.returncode, run.changed) == (0, 1), run.output
    assert lab.token_secret not in run.output
    assert lab.vm(100).node == "pve2"


def test_auditor_may_look_and_is_told_what_it_may_not(ansible: Ansible, lab: Any) -> None:
    reader = {
        "api_host": lab.api_endpoint,
        "api_user": lab.auditor,
        "api_password": lab.auditor_password,
        "ca_path": lab.ca_file,
        "cluster": None,
    }
    wish = {"name": "web-01", "clone": {"template": "debian-12-cloud"}}
    shown, foretold, refused = ansible.tasks(
        [
            {"pvefleet.infra.proxmox_server_info": {**reader, "vmid": 9000}},
            {"pvefleet.infra.proxmox_server": {**reader, **wish}, "check_mode": True},
            {"pvefleet.infra.proxmox_server": {**reader, **wish}},
        ]
    )
    assert shown["servers"][0]["template"] is True
    assert foretold["changed"]
    assert refused["failed"]
    assert "Unable to manage server web-01: " in refused["msg"]
    assert "403" in refused["msg"]
