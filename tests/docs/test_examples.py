# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples of the README and the guides, run as they are printed, against the lab.

In a page, a yaml block whose first line is `# file: NAME` becomes that file, all bash blocks are run in order by one
shell, and a json block is what the bash block before it prints. console blocks are not run: they need another machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import PveClient
from pvefleet.app import FAMILIES, create_app
from pvefleet.config import Settings
from pvefleet.errors import Kind

from tests.api.served import PASSWORD, Served
from tests.lab import Lab

CHECKOUT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# file: ([\w.-]+)\n")
# Keys whose values differ from run to run; their type has to be the same.
VOLATILE = {"id", "task_id", "api_endpoint", "created_at", "updated_at", "estimated_time"}

pytestmark = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="the examples use curl, jq")


@dataclass
class Page:
    """A page's examples, with the addresses and names of this test's cluster in place of the printed ones."""

    text: str
    folder: Path
    environment: dict[str, str]

    def run(self) -> list[str]:
        """What each bash block has printed. Files are written first."""
        blocks = FENCE.findall(self.text)
        for language, body in blocks:
            named = FILE.match(body) if language == "yaml" else None
            if named:
                path = self.folder / named[1]
                path.write_text(body)
                path.chmod(0o600)
        script = "set -euo pipefail\n"
        scripts = [body for language, body in blocks if language == "bash"]
        for number, body in enumerate(scripts):
            script += f"exec >{self._out(number)}\n{body}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=250,
            check=False,
        )
        printed = [out.read_text() for out in map(self._out, range(len(scripts))) if out.exists()]
        assert done.returncode == 0, f"{done.stderr}\n--- printed last:\n{printed[-1]}"
        self._compare(blocks, iter(printed))
        return printed

    def _out(self, number: int) -> Path:
        return self.folder / f"out.{number}"

    @staticmethod
    def _compare(blocks: list[tuple[str, str]], printed: Iterator[str]) -> None:
        last = ""
        for language, body in blocks:
            if language == "bash":
                last = next(printed)
            elif language == "json":
                # What is printed before (a stream, for one) is not part of the answer shown.
                answer = last[last.index("{\n") :]
                assert same(json.loads(body), json.loads(answer)), f"the page shows\n{body}\nbut it is\n{answer}"


def same(shown: Any, real: Any, key: str = "") -> bool:
    """Whether an answer is as shown: keys, and values but for the volatile ones."""
    if isinstance(shown, dict) and isinstance(real, dict):
        return shown.keys() == real.keys() and all(same(shown[name], real[name], name) for name in shown)
    if isinstance(shown, list) and isinstance(real, list):
        return len(shown) == len(real) and all(same(*pair, key) for pair in zip(shown, real, strict=True))
    return type(shown) is type(real) if key in VOLATILE else bool(shown == real)


def page(path: str, lab: Lab, folder: Path, **replaced: str) -> Page:
    shutil.copy(lab.ca_file, folder / "pve-root-ca.pem")
    text = (CHECKOUT / path).read_text()
    endpoints = {f"https://pve{number}.example.com:8006": lab.api_endpoint for number in (1, 2)}
    user, token = lab.token_id.split("!")
    login = {
        "fleet@pve!fleet": lab.token_id,
        # in a registry's file they are apart
        "user: fleet@pve\n": f"user: {user}\n",
        "token_id: fleet\n": f"token_id: {token}\n",
    }
    for old, new in {**endpoints, **login, **replaced}.items():
        text = text.replace(old, new)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PVEFLEET_"))}
    environment = {
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "HOME": str(folder),
        "PVE_TOKEN_SECRET": lab.token_secret,
        "ANSIBLE_NOCOLOR": "1",
    }
    return Page(text, folder, environment)


def recaps(printed: str) -> list[int]:
    """How much each ansible-playbook run has changed."""
    return [int(number) for number in re.findall(r"changed=(\d+)", printed)]


def states(lab: Lab) -> dict[str, str]:
    """The servers that there are, by name, and whether they run."""
    client = PveClient(lab.connection())
    guests = [guest for node in lab.nodes for guest in client.get(f"/nodes/{node}/qemu") if not guest.get("template")]
    return {guest["name"]: guest["status"] for guest in guests}


@contextmanager
def fleet(lab: Lab, tmp_path: Path) -> Iterator[Served]:
    """A service with the lab registered, as `make demo` leaves it."""
    with Served(tmp_path / "home") as served:
        cluster = {
            "name": "lab",
            "api_endpoint": lab.api_endpoint,
            "token_id": lab.token_id,
            "token_secret": lab.token_secret,
            "tls_fingerprint": lab.fingerprint,
        }
        answer = served.login().post(served.at("/api/v1/clusters"), json=cluster, timeout=30)
        assert answer.status_code == 201, answer.text
        yield served


def test_readme(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    with fleet(lab, tmp_path) as served:
        readme = page("README.md", lab, folder, **{"http://127.0.0.1:8080": served.url})
        readme.environment["PASSWORD"] = PASSWORD
        playbooks, calls = readme.run()
        tasks = served.login().get(served.at("/api/tasks"), timeout=30).json()["tasks"]
    assert recaps(playbooks) == [1, 0]
    assert '"status":"completed"' in calls
    assert '"running"' in calls.splitlines()
    assert [task["type"] for task in tasks] == ["stop_server", "create_server"]
    assert {"web-1": "running", "web-2": "running", "web-3": "running"}.items() <= states(lab).items()
    assert states(lab)["app-01"] in ("running", "stopped")


def test_http_api(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    with fleet(lab, tmp_path) as served:
        guide = page("docs/guides/http-api.md", lab, folder, **{"http://127.0.0.1:8080": served.url})
        guide.environment["PASSWORD"] = PASSWORD
        printed = guide.run()
    assert printed[-1].count('"status":"completed"') == 3
    assert printed[-1].splitlines()[-1] == '"RESOURCE_NOT_FOUND"'
    assert states(lab) == {}


def test_http_api_lists_every_call_with_its_permission(tmp_path: Path) -> None:
    text = (CHECKOUT / "docs/guides/http-api.md").read_text()
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (\w+(?: \w+)?) \|", text, re.M)
    listed = {call: permission.replace(" ", "_") for call, permission in rows}
    assert len(listed) == len(rows)
    declared = {endpoint: permission for family in FAMILIES for endpoint, permission in family.permissions.items()}
    served = {}
    for rule in create_app(Settings(home=tmp_path / "home")).url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            served[f"{method} {path}"] = declared.get(rule.endpoint, "open")
    assert listed == served


def test_http_api_lists_every_code() -> None:
    text = (CHECKOUT / "docs/guides/http-api.md").read_text()
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| `(\w+)` \|$", text, re.M)
    assert rows == [(str(kind.status), kind.name, kind.word) for kind in Kind]


def test_getting_started(lab: Lab, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    guide = page("docs/guides/getting-started.md", lab, tmp_path, **{"127.0.0.1:8080": f"127.0.0.1:{port}"})
    guide.environment |= {"PVEFLEET_PORT": port, "PVEFLEET_OBSERVE_INTERVAL": "0.5"}
    printed = guide.run()
    assert recaps(printed[0]) == [1, 1, 0]
    assert recaps(printed[1]) == [1, 1, 1]
    assert states(lab) == {"second": "running"}
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/health", timeout=5)


def test_clusters_and_credentials(lab: Lab, tmp_path: Path) -> None:
    text = (CHECKOUT / "docs/guides/clusters-and-credentials.md").read_text()
    (printed_pin,) = re.findall(r'tls_fingerprint: "([0-9A-F:]{95})"', text)
    guide = page("docs/guides/clusters-and-credentials.md", lab, tmp_path, **{printed_pin: lab.fingerprint})
    guide.environment["LAB_PASSWORD"] = lab.password
    printed = guide.run()
    assert [out.count("local-lvm shared; lab is healthy") for out in printed] == [1, 1, 0]
    assert (tmp_path / "clusters.yml").read_text().startswith("$ANSIBLE_VAULT;")
    assert recaps("".join(printed)) == [0, 0, 0]


def test_servers(lab: Lab, tmp_path: Path) -> None:
    guide = page("docs/guides/servers.md", lab, tmp_path)
    printed = guide.run()
    assert recaps("".join(printed)) == [1, 1, 2, 0, 1, 1, 1, 0]
    assert "on pve1: 10.0.0.5" in printed[0]
    assert "after the next start: cores memory" in printed[1]
    assert "running with local-lvm:" in printed[2]
    assert states(lab) == {}
