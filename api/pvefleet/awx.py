# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX needs to offer the collection's playbooks: job templates with surveys, and a credential type, as data.

Each file has the options of one call of the module awx.awx.job_template or awx.awx.credential_type. What differs from
one AWX to another (organization, project, inventory, credential, execution environment) is not in them.

A survey's answer is always a text or a number, and an optional question that nobody answers may arrive as an empty
text. So a survey asks what has to be given, what has a default, numbers, and what the table says is worth asking; the
rest is for the extra variables of a launch, and so are lists and mappings, which a text is not.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pvefleet.operations import PLAYBOOKS, Playbook

_HEAD = """---
# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Written by `pvefleet awx export`.
"""
# AWX's kinds of questions.
_NUMBERS = {"int": "integer", "float": "float"}
_LONGEST = 1024
_LONGEST_AREA = 64 * 1024
_VARIABLES = {
    "host": "PVEFLEET_API_HOST",
    "user": "PVEFLEET_API_USER",
    "token_id": "PVEFLEET_API_TOKEN_ID",
    "token_secret": "PVEFLEET_API_TOKEN_SECRET",
    "password": "PVEFLEET_API_PASSWORD",
    "tls_fingerprint": "PVEFLEET_TLS_FINGERPRINT",
}


class AwxError(Exception):
    """The files cannot be written; str() says why in one sentence."""


def export(folder: Path) -> list[Path]:
    """Writes the credential type and the job templates. Raises AwxError."""
    documents = {"credential_type.yml": credential_type()}
    documents |= {f"job_templates/{name}.yml": job_template(playbook) for name, playbook in PLAYBOOKS.items()}
    try:
        (folder / "job_templates").mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            (folder / name).write_text(render(document), encoding="utf-8")
    except OSError as error:
        raise AwxError(f"Unable to write {error.filename}: {error.strerror}") from error
    return [folder / name for name in documents]


def render(document: Mapping[str, Any]) -> str:
    return _HEAD + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def job_template(playbook: Playbook) -> dict[str, Any]:
    options = role_options(playbook)
    asked = [question(name, about, playbook) for name, about in options.items() if _is_asked(name, about, playbook)]
    asked.sort(key=lambda one: not one["required"])
    unasked = [name for name, about in options.items() if about.get("required") and name not in _variables(asked)]
    note = f" Give {', '.join(unasked)} as extra variables." if unasked else ""
    return {
        "name": f"PVE Fleet: {playbook.title}",
        "description": f"The playbook pvefleet.infra.{playbook.name}.{note}",
        "job_type": "run",
        "playbook": f"playbooks/{playbook.name}.yml",
        "ask_job_type_on_launch": True,  # for a check
        "ask_diff_mode_on_launch": True,
        "ask_credential_on_launch": True,  # which says the cluster
        "ask_variables_on_launch": True,
        "allow_simultaneous": True,
        "survey_enabled": bool(asked),
        "survey_spec": {"name": playbook.title, "description": f"Options of {playbook.name}", "spec": asked},
    }


def role_options(playbook: Playbook) -> dict[str, dict[str, Any]]:
    """The role's own description of the playbook's variables."""
    roles = importlib.resources.files("ansible_collections.pvefleet.infra") / "roles"
    text = (roles / playbook.role / "meta/argument_specs.yml").read_text(encoding="utf-8")
    options: dict[str, dict[str, Any]] = yaml.safe_load(text)["argument_specs"][playbook.entry]["options"]
    return options


def question(name: str, about: Mapping[str, Any], playbook: Playbook) -> dict[str, Any]:
    """One question of a survey."""
    kind = about.get("type", "str")
    choices = ["true", "false"] if kind == "bool" else [str(choice) for choice in about.get("choices", ())]
    area = kind in ("dict", "list")
    found: dict[str, Any] = {
        "question_name": name.removeprefix(f"{playbook.role}_").replace("_", " ").capitalize(),
        # a module reads JSON where it takes a mapping
        "question_description": _plain(about["description"]) + (" As JSON." if kind == "dict" else ""),
        "variable": name,
        "required": bool(about.get("required") or (name in playbook.asks and not about.get("no_log"))),
    }
    default = playbook.asks.get(name) or _default(about.get("default"))
    if about.get("no_log"):
        size = {"min": int(found["required"]), "max": _LONGEST}
        return {**found, "type": "password", **size, "default": "", "choices": ""}
    if choices:
        return {**found, "type": "multiplechoice", "choices": choices, "default": default}
    if kind in _NUMBERS:
        return {**found, "type": _NUMBERS[kind], "min": 0, "max": 2**31 - 1, "default": default, "choices": ""}
    size = {"min": int(found["required"]), "max": _LONGEST_AREA if area else _LONGEST}
    return {**found, "type": "textarea" if area else "text", **size, "default": default, "choices": ""}


def _is_asked(name: str, about: Mapping[str, Any], playbook: Playbook) -> bool:
    if name in playbook.asks:
        return True
    kind = about.get("type", "str")
    if kind in ("list", "dict"):
        return False
    return bool(about.get("required") or "default" in about or kind in _NUMBERS)


def credential_type() -> dict[str, Any]:
    """The kind of credential that says which cluster, as whom, and whom to trust: by environment variables, which no
    playbook can print by accident as it could an extra variable."""
    secrets = {"token_secret": "Secret of the API token", "password": "Password, where a token will not do"}
    texts = {
        "host": "Host name or address of a node, or the URL of its API",
        "user": "User with its realm, as in automation@pve",
        "token_id": "Name of the API token",
        "tls_fingerprint": "SHA-256 fingerprint of the server's certificate",
    }
    fields: list[dict[str, Any]] = [{"id": name, "type": "string", "label": text} for name, text in texts.items()]
    fields += [{"id": name, "type": "string", "label": text, "secret": True} for name, text in secrets.items()]
    fields.append({"id": "ca", "type": "string", "label": "Certificate of the CA, in PEM", "multiline": True})
    environment = {variable: f"{{{{ {name} | default('') }}}}" for name, variable in _VARIABLES.items()}
    environment["PVEFLEET_CA_PATH"] = "{{ tower.filename.ca if ca | default('') else '' }}"
    return {
        "name": "PVE Fleet",
        "description": "A cluster of Proxmox VE",
        "kind": "cloud",
        "inputs": {"fields": fields, "required": ["host"]},
        "injectors": {"env": environment, "file": {"template.ca": "{{ ca | default('') }}"}},
    }


def _variables(asked: list[dict[str, Any]]) -> set[str]:
    return {one["variable"] for one in asked}


def _default(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(description: str | list[str]) -> str:
    """Without Ansible's markup."""
    text = description if isinstance(description, str) else " ".join(description)
    return re.sub(r"\b[A-Z]+\((?:[\w.]+#\w+:)?([^)]*)\)", r"\1", text)


class _Dumper(yaml.SafeDumper):
    """Indents lists as yamllint wants them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)
