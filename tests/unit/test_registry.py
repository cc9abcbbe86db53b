# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry file: read strictly, written safely, its secrets wherever they are."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import registry as registry_module
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.registry import (
    Registry,
    RegistryError,
    dump,
    edit,
    load,
    parse,
)
from hypothesis import given
from hypothesis import strategies as st

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str, mode: int = 0o600) -> str:
        path = tmp_path / "clusters.yml"
        path.write_text(textwrap.dedent(text))
        path.chmod(mode)
        return str(path)

    return to_file


PLAIN = """\
    clusters:
      prod:
        endpoints: [https://pve1.example.com:8006, "pve2.example.com", "2001:db8::1"]
        user: root@pam
        password: pl4in-secret
        ca_path: prod-ca.pem
        default_node: pve1
        default_storage: local-lvm
      lab:
        endpoints: [192.0.2.9]
        token_id: automation@pve!fleet
        token_secret: 0000-1111
        tls_fingerprint: "{pin}"
    default: prod
"""


def test_entry_becomes_a_connection(write: Write, tmp_path: Path) -> None:
    registry = load(write(PLAIN.format(pin="ab" * 32)))
    prod = registry.connection()
    assert prod.endpoints == (
        "https://pve1.example.com:8006",
        "https://pve2.example.com:8006",
        "https://[2001:db8::1]:8006",
    )
    assert (prod.name, prod.user, prod.password, prod.token_id) == ("prod", "root@pam", "pl4in-secret", None)
    assert (prod.default_node, prod.default_storage) == ("pve1", "local-lvm")
    assert prod.ca_path == str(tmp_path / "prod-ca.pem")
    assert prod.validate_certs
    lab = registry.connection("lab", read_timeout=90.0)
    assert (lab.user, lab.token_id, lab.token_secret) == ("automation@pve", "fleet", "0000-1111")
    assert (lab.tls_fingerprint, lab.read_timeout) == ("ab" * 32, 90.0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("password: pl4in-secret", "passwrod: pl4in-secret"), r"clusters\.prod\.passwrod is unknown \(known: "),
        (("default: prod", "defualt: prod"), "the key defualt is unknown"),
        (("default: prod", "default: staging"), "default names a cluster that is not in clusters"),
        (("password: pl4in-secret", "password: 12345"), r"clusters\.prod\.password must be text \(quote it\)"),
        (("password: pl4in-secret", "password: {vault: x}"), r"must be text, or \{env: NAME\}, or \{file: PATH\}"),
        (("password: pl4in-secret", "password: {env: A, file: B}"), "password must be text, or"),
        (("user: root@pam", "validate_certs: 'no'"), "validate_certs must be true or false"),
        (("user: root@pam", "user: root@pam\n        user: admin@pam"), "line 5, column 5: the key user is there"),
        (("[192.0.2.9]", "[]"), r"clusters\.lab\.endpoints must list at least one address"),
        (("[192.0.2.9]", "192.0.2.9"), r"clusters\.lab\.endpoints must be a list"),
        (("[192.0.2.9]", "['http://192.0.2.9']"), "must be reached by https"),
        (("[192.0.2.9]", "['https://u:p@192.0.2.9']"), "do not belong into the address"),
        (("      lab:", "      1:"), "a cluster's name is a text"),
        (("clusters:", "clusters: ["), "not valid YAML at line"),
        (("password: pl4in-secret", "password: *pl4in-secret"), "not valid YAML at line"),
        (("password: pl4in-secret", "password: !!python/object:os.system pl4in-secret"), "not valid YAML at line"),
        (("password: pl4in-secret", 'password: "pl4in-secret'), "not valid YAML at line"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_shown(write: Write, change: tuple[str, str], complaint: str) -> None:
    path = write(PLAIN.format(pin="ab" * 32).replace(*change))
    with pytest.raises(RegistryError, match=complaint) as caught:
        load(path)
    assert str(caught.value).startswith(f"Unable to use the registry {path}: ")
    assert "pl4in-secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("password: pl4in-secret", "default_node: pve1"), "a password or an API token is missing"),
        (("password: pl4in-secret", "password: x\n        token_id: x\n        token_secret: y"), "not both"),
        (("password: pl4in-secret", "token_id: x"), "needs both its id and its secret"),
        (("user: root@pam", "user: root"), "must be name@realm"),
        (("ca_path: prod-ca.pem", "ca_path: a.pem\n        tls_fingerprint: b"), "exclude each other"),
        (("ca_path: prod-ca.pem", "ca_path: a.pem\n        validate_certs: false"), "contradict each other"),
        (("ca_path: prod-ca.pem", "tls_fingerprint: AA:BB"), "32 pairs of hex digits"),
    ],
)
def test_contradictions_are_found_when_the_entry_is_used(
    write: Write, change: tuple[str, str], complaint: str
) -> None:
    text = PLAIN.format(pin="ab" * 32).replace("        default_node: pve1\n", "").replace(*change)
    registry = load(write(text))
    with pytest.raises(RegistryError, match=rf"clusters\.prod: .*{complaint}"):
        registry.connection("prod")
    assert registry.connection("lab").user == "automation@pve"


def test_which_cluster_is_meant(write: Write) -> None:
    text = PLAIN.format(pin="ab" * 32)
    assert load(write(text)).pick(None) == "prod"
    without = load(write(text.replace("default: prod", "")))
    with pytest.raises(RegistryError, match=r"name one of its clusters \(lab, prod\)"):
        without.connection()
    with pytest.raises(RegistryError, match=r"has no cluster staging \(it has: lab, prod\)"):
        without.connection("staging")
    del without.clusters["lab"]
    assert without.pick(None) == "prod"


def test_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"nowhere\.yml: No such file or directory"):
        load(str(tmp_path / "nowhere.yml"))


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_plain_secrets_are_refused_where_others_can_read(write: Write, mode: int) -> None:
    with pytest.raises(RegistryError, match="chmod 600"):
        load(write(PLAIN.format(pin="ab" * 32), mode))


def test_secrets_elsewhere_may_be_in_an_open_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab.token").write_text("from-a-file\n")
    monkeypatch.setenv("PROD_PASSWORD", "from-the-environment")
    text = PLAIN.format(pin="ab" * 32)
    text = text.replace("pl4in-secret", "{env: PROD_PASSWORD}").replace("0000-1111", "{file: lab.token}")
    registry = load(write(text, 0o644))
    assert registry.connection("prod").password == "from-the-environment"
    assert registry.connection("lab").token_secret == "from-a-file"
    monkeypatch.delenv("PROD_PASSWORD")
    with pytest.raises(RegistryError, match=r"clusters\.prod\.password: the environment variable PROD_PASSWORD is not"):
        registry.connection("prod")
    (tmp_path / "lab.token").unlink()
    with pytest.raises(RegistryError, match=r"clusters\.lab\.token_secret: lab\.token: No such file"):
        registry.connection("lab")


@pytest.fixture
def vault(tmp_path: Path) -> Callable[..., str]:
    """ansible-vault by hand: vault("encrypt", text) with the password in the file vault-password."""
    password = tmp_path / "vault-password"
    password.write_text("v4ult\n")

    def run(action: str, text: str) -> str:
        command = [str(Path(sys.executable).with_name("ansible-vault")), action, "--output", "-"]
        environment = {**os.environ, "ANSIBLE_VAULT_PASSWORD_FILE": str(password)}
        return subprocess.run(command, input=text, env=environment, capture_output=True, text=True, check=True).stdout

    return run


def test_vault_value(
    write: Write, tmp_path: Path, vault: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    indented = vault("encrypt", "v4ulted").strip().replace("\n", "\n          ")
    text = textwrap.dedent(PLAIN.format(pin="ab" * 32))
    text = text.replace("0000-1111", "{env: X}").replace("pl4in-secret", f"!vault |\n          {indented}")
    path = write(text, 0o644)
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE", raising=False)
    with pytest.raises(RegistryError, match="ANSIBLE_VAULT_PASSWORD_FILE"):
        load(path).connection("prod")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "vault-password"))
    assert load(path).connection("prod").password == "v4ulted"
    with edit(path) as registry:
        registry.clusters["prod"]["default_node"] = "pve9"
    assert "$ANSIBLE_VAULT" in Path(path).read_text()
    assert load(path).connection("prod").password == "v4ulted"


def test_whole_file_in_the_vault_stays_there(
    write: Write, tmp_path: Path, vault: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(vault("encrypt", textwrap.dedent(PLAIN.format(pin="ab" * 32))), 0o644)
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(tmp_path / "vault-password"))
    with edit(path) as registry:
        del registry.clusters["lab"]
    assert Path(path).read_text().startswith("$ANSIBLE_VAULT;")
    assert "prod" in vault("decrypt", Path(path).read_text())
    assert list(load(path).clusters) == ["prod"]
    monkeypatch.delenv("ANSIBLE_VAULT_PASSWORD_FILE")
    with pytest.raises(RegistryError, match="could not decrypt"):
        load(path)


# ---------------------------------------------------------------- writing

text_value = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), min_size=1, max_size=30)
secret = text_value | st.fixed_dictionaries({"env": text_value}) | st.fixed_dictionaries({"file": text_value})
entry = st.fixed_dictionaries(
    {"endpoints": st.lists(st.sampled_from(["pve1", "https://10.0.0.1:8006", "2001:db8::1"]), min_size=1)},
    optional={
        "user": text_value,
        "password": secret,
        "token_id": text_value,
        "token_secret": secret,
        "ca_pem": text_value,
        "validate_certs": st.booleans(),
        "default_storage": text_value,
        "created_at": st.just("2026-01-11T10:30:00Z"),
    },
)
names = text_value.filter(lambda name: name == name.strip())


@given(st.dictionaries(names, entry, max_size=3), st.data())
def test_what_is_written_is_read_again(clusters: dict[str, dict[str, Any]], data: st.DataObject) -> None:
    default = data.draw(st.sampled_from([None, *clusters]))
    written = Registry("r.yml", clusters, default)
    again = parse(dump(written), "r.yml")
    assert (again.clusters, again.default) == (clusters, default)


def test_new_file_is_the_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "clusters.yml"
    old = os.umask(0)
    try:
        with edit(str(path)) as registry:
            registry.clusters["a"] = {"endpoints": ["pve1"], "password": "x"}
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {entry.name for entry in path.parent.iterdir()} == {"clusters.yml", ".clusters.yml.lock"}


def test_unchanged_file_is_not_touched(write: Write) -> None:
    path = write(PLAIN.format(pin="ab" * 32))
    before = os.stat(path).st_ino, Path(path).read_bytes()
    with edit(path):
        pass
    assert (os.stat(path).st_ino, Path(path).read_bytes()) == before


def test_error_while_editing_leaves_the_file(write: Write, tmp_path: Path) -> None:
    path = write(PLAIN.format(pin="ab" * 32))
    before = Path(path).read_bytes()
    with pytest.raises(RegistryError, match=r"clusters\.bad\.nonsense is unknown"), edit(path) as registry:
        registry.clusters["bad"] = {"nonsense": 1}
    with pytest.raises(KeyError), edit(path) as registry:
        del registry.clusters["prod"], registry.clusters["nobody"]
    assert Path(path).read_bytes() == before
    assert not list(tmp_path.glob(".clusters-*"))


def test_link_is_followed_not_replaced(write: Write, tmp_path: Path) -> None:
    path = write(PLAIN.format(pin="ab" * 32))
    link = tmp_path / "link.yml"
    link.symlink_to(path)
    with edit(str(link)) as registry:
        del registry.clusters["lab"]
    assert link.is_symlink()
    assert list(load(path).clusters) == ["prod"]


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    path = str(tmp_path / "clusters.yml")

    def add(number: int) -> None:
        with edit(path) as registry:
            registry.clusters[f"c{number}"] = {"endpoints": ["pve1"]}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    assert len(load(path).clusters) == 40


def test_default_path_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVEFLEET_REGISTRY", "~/elsewhere.yml")
    assert registry_module.default_path() == os.path.expanduser("~/elsewhere.yml")
    monkeypatch.delenv("PVEFLEET_REGISTRY")
    assert registry_module.default_path() == os.path.expanduser("~/.config/pvefleet/clusters.yml")
