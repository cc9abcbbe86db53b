# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user gets from `pip install .` and from `ansible-galaxy collection build`, used outside the checkout."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import requests
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def clean_environment(home: Path) -> dict[str, str]:
    ours = ("ANSIBLE_", "PVEFLEET_", "PROXMOX_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "HOME": str(home), "ANSIBLE_NOCOLOR": "1"}


def run(*argv: str | Path, home: Path, **environment: str) -> str:
    """What a command prints, run in `home` by somebody who has set nothing."""
    env = clean_environment(home) | environment
    env["PATH"] = f"{Path(argv[0]).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """The bin directory of an empty venv after `pip install` of the checkout."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], check=True, capture_output=True, text=True)
    run(venv / "bin/python", "-m", "pip", "install", "--quiet", CHECKOUT, home=home, PIP_CACHE_DIR=cache.stdout.strip())
    return venv / "bin"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """The file that `ansible-galaxy collection build` makes of the checkout."""
    folder = tmp_path_factory.mktemp("artifact")
    run(BIN / "ansible-galaxy", "collection", "build", "--output-path", folder, CHECKOUT, home=home)
    return next(folder.glob("*.tar.gz"))


def modules() -> list[str]:
    return sorted(path.stem for path in (CHECKOUT / "plugins/modules").glob("*.py"))


def playbooks() -> list[str]:
    return sorted(path.stem for path in (CHECKOUT / "playbooks").glob("*.yml"))


def sources(ansible_doc: Path, home: Path, **environment: str) -> Mapping[str, str]:
    """The file that ansible-doc has read for each of our modules."""
    names = [f"pvefleet.infra.{name}" for name in modules()]
    found = json.loads(run(ansible_doc, "--json", "--type", "module", *names, home=home, **environment))
    assert sorted(found) == names
    return {name: entry["doc"]["filename"] for name, entry in found.items()}


def test_the_command_is_installed(installed: Path, home: Path) -> None:
    assert "serve" in run(installed / "pvefleet", "--help", home=home)


def test_ansible_doc_finds_every_module_of_the_installed_collection(installed: Path, home: Path) -> None:
    for name, file in sources(installed / "ansible-doc", home).items():
        assert file.startswith(str(installed.parent)), name


def test_ansible_playbook_finds_every_playbook_of_the_installed_collection(installed: Path, home: Path) -> None:
    for name in playbooks():
        run(installed / "ansible-playbook", "--syntax-check", f"pvefleet.infra.{name}", home=home)


def test_the_installed_service_uses_the_installed_collection(installed: Path, home: Path) -> None:
    client = "ansible_collections.pvefleet.infra.plugins.module_utils._pve.client"
    script = f"import pvefleet.app, sys; print(sys.modules['{client}'].__file__)"
    assert run(installed / "python", "-c", script, home=home).startswith(str(installed.parent))


def test_the_installed_service_serves(installed: Path, home: Path, tmp_path: Path) -> None:
    argv = [installed / "pvefleet", "serve", "--port", "0", "--home", tmp_path / "fleet"]
    environment = {**clean_environment(home), "PVEFLEET_ADMIN_PASSWORD": "a password for this test"}
    with subprocess.Popen(argv, cwd=home, env=environment, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            url = next(found[0] for line in service.stdout if (found := re.search(r"http://\S+", line)))
            login = {"username": "admin", "password": "a password for this test"}
            answer = requests.post(f"{url}/auth/login", json=login, headers={"Accept-Language": "it"}, timeout=30)
            assert answer.status_code == 200, answer.text
        finally:
            service.terminate()
            service.wait(30)


def test_the_artifact_is_the_collection_and_nothing_else(artifact: Path) -> None:
    with tarfile.open(artifact) as tar:
        top = {name.split("/")[0] for name in tar.getnames()}
    assert top == {
        "CHANGELOG.md", "CONTRIBUTING.md", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "SECURITY.md",
        "changelogs", "docs", "meta", "playbooks", "plugins", "roles",
    }  # fmt: skip


def test_the_artifact_installs_and_documents_every_module(artifact: Path, home: Path, tmp_path: Path) -> None:
    run(BIN / "ansible-galaxy", "collection", "install", "--offline", "--force", "-p", tmp_path, artifact, home=home)
    for name, file in sources(BIN / "ansible-doc", home, ANSIBLE_COLLECTIONS_PATH=str(tmp_path)).items():
        assert file.startswith(str(tmp_path)), name


def test_one_version_everywhere() -> None:
    galaxy = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["version"]
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    changelog = yaml.safe_load((CHECKOUT / "changelogs/changelog.yaml").read_text())["releases"]
    assert project == galaxy
    assert list(changelog)[-1] == galaxy


def test_the_execution_environment_has_what_the_modules_import() -> None:
    lines = (CHECKOUT / "meta/ee-requirements.txt").read_text().splitlines()
    listed = {line for line in lines if not line.startswith("#")}
    assert listed <= set(tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"])
    imported = set()
    for path in (CHECKOUT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    ours = imported - sys.stdlib_module_names - {"ansible", "ansible_collections"}
    distribution = {"yaml": "PyYAML", "urllib3": "requests"}  # requests brings urllib3 with it
    assert {distribution.get(name, name) for name in ours} == {re.split("[<>=]", line)[0] for line in listed}
