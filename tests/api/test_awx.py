# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is exported for AWX: complete, as committed, and answered as AWX answers it, good for the playbooks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2.sandbox
import pytest
import yaml
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.connect import connection_from_params
from click.testing import CliRunner
from pvefleet import awx
from pvefleet.access.permissions import PERMISSIONS
from pvefleet.cli import main
from pvefleet.operations import OPERATIONS, PLAYBOOKS

from tests.ansible_run import Ansible
from tests.lab import Lab

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "docs/awx"
KINDS = {"text", "textarea", "password", "integer", "float", "multiplechoice"}


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.yml")}


def test_every_playbook_has_its_row() -> None:
    assert sorted(PLAYBOOKS) == sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_a_row_says_what_the_playbook_does(name: str) -> None:
    row = PLAYBOOKS[name]
    (play,) = yaml.safe_load((ROOT / "playbooks" / f"{name}.yml").read_text())
    (task,) = play["tasks"]
    role = {"name": f"pvefleet.infra.{row.role}", "tasks_from": row.entry}
    assert task["ansible.builtin.import_role"] == role
    assert set(row.permissions) <= PERMISSIONS
    assert set(row.asks) <= set(awx.role_options(row))


def test_operations_ask_for_a_permission_of_their_playbook() -> None:
    for operation in OPERATIONS.values():
        assert operation.permission in PLAYBOOKS[operation.playbook.removeprefix("pvefleet.infra.")].permissions


def test_the_committed_files_are_a_fresh_export(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["awx", "export", "--to", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    fresh = files(tmp_path / "new")
    assert sorted(done.output.split()) == sorted(str(tmp_path / "new" / name) for name in fresh)
    assert fresh == files(COMMITTED), "run: pvefleet awx export --to docs/awx"


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "job_templates").write_text("")
    done = CliRunner().invoke(main, ["awx", "export", "--to", str(tmp_path)])
    assert (done.exit_code, done.output) == (1, f"Error: Unable to write {tmp_path}/job_templates: File exists\n")


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_surveys(name: str) -> None:
    row = PLAYBOOKS[name]
    template = yaml.safe_load((COMMITTED / "job_templates" / f"{name}.yml").read_text())
    assert (ROOT / template["playbook"]).is_file()
    options = awx.role_options(row)
    questions = template["survey_spec"]["spec"]
    assert [one["required"] for one in questions] == sorted((one["required"] for one in questions), reverse=True)
    for one in questions:
        about = options[one["variable"]]
        assert one["type"] in KINDS
        assert (one["type"] == "password") is bool(about.get("no_log"))
        assert not re.search(r"[A-Z]\(", one["question_description"])
        if one["type"] == "multiplechoice":
            assert one["default"] in ("", *one["choices"])
        # nobody has to answer it, and then it is worth nothing
        if not one["required"] and one["type"] in ("text", "textarea"):
            assert one["default"]
    needed = {option for option, about in options.items() if about.get("required")}
    unasked = needed - {one["variable"] for one in questions}
    assert all(option in template["description"] for option in unasked)
    secrets = {option for option in needed if options[option].get("no_log")}
    assert secrets <= {one["variable"] for one in questions}


def answers(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Extra variables as AWX makes them: unanswered questions have their default, an empty text if it is that."""
    questions = awx.job_template(PLAYBOOKS[name])["survey_spec"]["spec"]
    assert set(given) <= {one["variable"] for one in questions}
    found = {}
    for one in questions:
        if one["variable"] in given:
            found[one["variable"]] = given[one["variable"]]
            assert isinstance(found[one["variable"]], int if one["type"] == "integer" else str)
        elif one["type"] not in ("integer", "float"):
            assert not one["required"], one["variable"]
            found[one["variable"]] = one["default"]
    return found


def injected(lab: Lab, folder: Path, fields: dict[str, str]) -> dict[str, str]:
    """The environment of a job with a credential, as AWX renders it."""
    engine = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    injectors = awx.credential_type()["injectors"]
    ca = folder / "ca.pem"
    ca.write_text(engine.from_string(injectors["file"]["template.ca"]).render(**fields))
    names = {"tower": {"filename": {"ca": str(ca)}}, **fields}
    return {name: engine.from_string(text).render(**names) for name, text in injectors["env"].items()}


def credential(lab: Lab) -> dict[str, str]:
    pem = Path(lab.ca_file).read_text()
    return {"host": lab.api_endpoint, "token_id": lab.token_id, "token_secret": lab.token_secret, "ca": pem}


def test_the_credential_reaches_the_cluster(lab: Lab, tmp_path: Path) -> None:
    by_token = injected(lab, tmp_path, credential(lab))
    assert PveClient(connection_from_params({}, by_token)).get("/version")
    password = {"host": lab.api_endpoint, "user": lab.username, "password": lab.password}
    by_password = injected(lab, tmp_path, {**password, "tls_fingerprint": lab.fingerprint})
    assert PveClient(connection_from_params({}, by_password)).get("/version")
    fields = {field["id"]: field.get("secret", False) for field in awx.credential_type()["inputs"]["fields"]}
    assert fields["token_secret"]
    assert fields["password"]
    assert "extra_vars" not in awx.credential_type()["injectors"]


def test_answered_surveys_run(lab: Lab, tmp_path: Path) -> None:
    """Texts and numbers, blanks included, with the credential's environment and no registry."""
    ansible = Ansible(tmp_path, lab)
    del ansible.environment["PVEFLEET_REGISTRY"]
    (tmp_path / "clusters.yml").unlink()
    ansible.environment |= injected(lab, tmp_path, credential(lab))
    lab.do(lab.pve.add_image, "local", "rocky-9.qcow2", virtual=2 * 1024**3)
    template = {"template_image": '{"storage": "local", "file": "rocky-9.qcow2"}', "template_node": "pve1"}
    runs: list[tuple[str, dict[str, Any]]] = [
        (
            "server_create",
            {"server_name": "web-01", "server_clone": '{"template": "debian-12-cloud"}', "server_memory": 1024},
        ),
        ("server_update", {"server_name": "web-01", "server_cores": 3}),
        ("server_power", {"server_name": "web-01", "server_state": "stopped"}),
        ("fleet_power", {"fleet_names": "web-01\n", "fleet_state": "started"}),
        ("fleet_delete", {"fleet_names": "web-01"}),
        ("server_create", {"server_name": "web-02", "server_clone": '{"template": "debian-12-cloud"}'}),
        ("server_delete", {"server_name": "web-02"}),
        ("template_create", {**template, "template_name": "rocky-9", "template_disk_storage": "local-lvm"}),
        ("template_delete", {"template_name": "rocky-9"}),
    ]
    for name, given in runs:
        run = ansible.playbook(f"pvefleet.infra.{name}", **answers(name, given))
        assert (run.returncode, run.changed) == (0, 1), run.output
        if name == "server_update":
            guest = lab.vm(100)
            assert guest.config["cores"] in (3, "3") or guest.pending
            assert "cipassword" not in guest.config
        if name == "template_create":
            # an empty password asks for none, and not for cloud-init's drive either
            assert not any(
                "cipassword" in key or "cloudinit" in str(value) for key, value in lab.vm(100).config.items()
            )
    assert [guest.vmid for guest in lab.pve.vms] == [lab.template_vmid]


def test_the_execution_environment_takes_the_artifact_that_is_built() -> None:
    environment = yaml.safe_load((ROOT / "execution-environment.yml").read_text())
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    artifact = f"pvefleet-infra-{version}.tar.gz"
    (source,) = environment["additional_build_files"]
    (collection,) = environment["dependencies"]["galaxy"]["collections"]
    assert source == {"src": f"dist/{artifact}", "dest": "collection"}
    assert collection == {"name": f"/tmp/collection/{artifact}", "type": "file"}


def test_the_page_imports_every_key_of_the_files() -> None:
    page = (ROOT / "docs/awx.md").read_text()
    (play,) = yaml.safe_load(re.findall(r"^```yaml\n(- name: Import.*?)^```$", page, re.M | re.S)[0])
    types, templates = play["tasks"]
    assert set(awx.credential_type()) == set(types["awx.awx.credential_type"])
    known = set(templates["awx.awx.job_template"])
    for playbook in PLAYBOOKS.values():
        assert set(awx.job_template(playbook)) < known
