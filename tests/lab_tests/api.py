# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""A client as plain as it can be: the lab is tested without the collection's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import requests

from tests.lab import Lab


class Refusal(NamedTuple):
    status: int
    message: str
    errors: dict[str, str]


class Api:
    """Calls by token, as JSON. ``get`` and so on want success, ``refused`` wants anything else."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.session = requests.Session()
        self.session.trust_env = False  # a CA bundle from the environment would win over the lab's own
        self.session.verify = lab.ca_file
        self.session.headers["Authorization"] = f"PVEAPIToken={lab.token_id}={lab.token_secret}"

    def send(self, method: str, path: str, **params: Any) -> requests.Response:
        where = f"{self.lab.api_endpoint}/api2/json{path}"
        if method in ("GET", "DELETE"):
            return self.session.request(method, where, params=params)
        return self.session.request(method, where, json=params)

    def _data(self, method: str, path: str, **params: Any) -> Any:
        answer = self.send(method, path, **params)
        assert answer.status_code == 200, (method, path, answer.status_code, answer.text)
        return answer.json()["data"]

    def get(self, path: str, **params: Any) -> Any:
        return self._data("GET", path, **params)

    def put(self, path: str, **params: Any) -> Any:
        return self._data("PUT", path, **params)

    def post(self, path: str, **params: Any) -> Any:
        return self._data("POST", path, **params)

    def delete(self, path: str, **params: Any) -> Any:
        return self._data("DELETE", path, **params)

    def refused(self, method: str, path: str, **params: Any) -> Refusal:
        answer = self.send(method, path, **params)
        assert answer.status_code >= 400, (method, path, answer.text)
        body = answer.json()
        return Refusal(answer.status_code, body["message"].strip(), body.get("errors", {}))

    # ------------------------------------------------------------------ tasks

    def task(self, upid: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/nodes/{upid.split(':')[1]}/tasks/{upid}/status")
        return found

    def wait(self, upid: str) -> str:
        """The exit status of a task."""
        return str(until(lambda: self.task(upid).get("exitstatus")))

    def log(self, upid: str) -> list[str]:
        return [line["t"] for line in self.get(f"/nodes/{upid.split(':')[1]}/tasks/{upid}/log", limit=0)]

    def run(self, method: str, path: str, **params: Any) -> str:
        """Start a task, wait for it, and return its exit status."""
        return self.wait(self._data(method, path, **params))

    # ----------------------------------------------------------------- guests

    def vm(self, vmid: int, rest: str = "", node: str = "pve1") -> str:
        return f"/nodes/{node}/qemu/{vmid}{rest}"

    def clone(self, newid: int, source: int = 9000, **params: Any) -> int:
        params.setdefault("full", 0)  # quick: nothing is copied
        assert self.run("POST", self.vm(source, "/clone"), newid=newid, **params) == "OK"
        return newid

    def start(self, vmid: int) -> None:
        assert self.run("POST", self.vm(vmid, "/status/start")) == "OK"

    def config(self, vmid: int, **params: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.get(self.vm(vmid, "/config"), **params)
        return found

    def pending(self, vmid: int) -> dict[str, Any]:
        """Option -> its pending value; None for a pending delete."""
        items = self.get(self.vm(vmid, "/pending"))
        return {item["key"]: item.get("pending") for item in items if "pending" in item or "delete" in item}

    def row(self, vmid: int) -> dict[str, Any] | None:
        rows = {row["vmid"]: row for row in self.get("/cluster/resources", type="vm")}
        return rows.get(vmid)

    def volumes(self, storage: str = "local-lvm", node: str = "pve1") -> set[str]:
        return {item["volid"].partition(":")[2] for item in self.get(f"/nodes/{node}/storage/{storage}/content")}


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.002)
    return value
