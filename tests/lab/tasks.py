# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""Workers: real concurrency, progress in their log, and a way to stop or kill them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web
from fakepve.model import PveError, TaskError, lock_timeout
from fakepve.routing import die, param_error
from fakepve.server import USER, params

from .locks import FileLock

Log = Callable[[str], None]
Body = Callable[[Log], Awaitable[None]]

# Real seconds that the shortest task takes, so that whoever asks at once sees it running.
SHORTEST = 0.01


class Tasks:
    """Mixin: UPIDs, their logs, and the lock file every guest has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._jobs: dict[str, asyncio.Task[None]] = {}
        self._killed: set[str] = set()
        # What awaits the next task of a type: its ending, or its ending before it has done its work.
        self.endings: dict[str, tuple[str, tuple[str, ...]]] = {}
        self.cuts: dict[str, str] = {}
        self._locks: dict[int, FileLock] = {}

    def _routes_task_stop(self) -> list[tuple[str, str, Any]]:
        return [("DELETE", "/nodes/{node}/tasks/{upid}", self._task_stop)]

    # ---------------------------------------------------------------- workers

    async def worker(self, node: str, kind: str, ident: object, user: str, body: Body) -> str:
        """Fork a worker and answer its UPID. ``body`` gets a function that writes a line of the task's log."""
        upid, pid, start = self._upid(node, kind, ident, user)
        record: dict[str, Any] = {
            "upid": upid,
            "node": node,
            "pid": pid,
            "pstart": pid * 7,
            "starttime": start,
            "type": kind,
            "id": str(ident),
            "user": user,
            "status": "running",
            "log": [],
        }
        self.tasks[upid] = record
        self.tasklog.append(record)
        job = asyncio.ensure_future(self._work(record, body))
        self._jobs[upid] = job
        job.add_done_callback(lambda _: self._jobs.pop(upid, None))
        if not self.time_scale:
            await job
        return str(upid)

    async def _work(self, record: dict[str, Any], body: Body) -> None:
        log = record["log"]
        status = "OK"
        began = time.monotonic()
        cut = self.cuts.pop(record["type"], None)
        if cut is not None and (myself := asyncio.current_task()) is not None:
            asyncio.get_running_loop().call_soon(myself.cancel)
        try:
            await body(log.append)
        except TaskError as error:
            status = str(error)
        except PveError as error:
            status = error.message
        except asyncio.CancelledError:
            status = "unexpected status" if record["upid"] in self._killed else "interrupted by signal"
        if self.time_scale:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(began + SHORTEST - time.monotonic())
        if record["type"] in self.endings:
            status, lines = self.endings.pop(record["type"])
            log.extend(lines)
        status = cut or status
        record.update(status="stopped", exitstatus=status, endtime=int(time.time()))
        if status == "unexpected status":
            return  # nobody was left to write the last line
        warned = status.startswith("WARNINGS: ")
        log.append("TASK OK" if status == "OK" else f"TASK {status}" if warned else f"TASK ERROR: {status}")

    async def task(
        self,
        node: str,
        ttype: str,
        tid: object,
        user: str,
        body: Callable[[], Awaitable[str | None]],
        vm: Any = None,
        lock: bool = True,
        log: tuple[str, ...] | list[str] = (),
    ) -> str:
        """fakepve's own way to start a task, run by the lab's workers."""

        async def run(write: Log) -> None:
            for line in log:
                write(line)
            if vm is not None and lock:
                async with self.config_lock(vm.vmid):
                    note = await body()
            else:
                note = await body()
            if note:
                write(note)

        return await self.worker(node, ttype, tid, user, run)

    def end_next_task(self, kind: str, exitstatus: str, *log: str) -> None:
        """The next task of this type does its work and then ends with this status, ``WARNINGS: 1`` for instance."""
        self.endings[kind] = (exitstatus, log)

    def cut_next_task(self, kind: str, exitstatus: str) -> None:
        """The next task of this type is cut off where it first has to wait, and ends with this status.

        One that never waits ends so after its work. ``unexpected status`` is that of a worker that was killed.
        """
        self.cuts[kind] = exitstatus

    async def kill_task(self, upid: str) -> None:
        """Kill a worker as the kernel's OOM killer would: it ends as ``unexpected status``."""
        self._killed.add(upid)
        await self._interrupt(upid)

    async def _interrupt(self, upid: str) -> None:
        job = self._jobs.get(upid)
        if job is not None:
            job.cancel()
            await asyncio.wait([job])

    async def stop_workers(self) -> None:
        """End every worker; for the end of the lab."""
        for upid in list(self._jobs):
            await self._interrupt(upid)

    # ----------------------------------------------------------------- routes

    def _get_task(self, request: web.Request) -> dict[str, Any]:
        return self._visible_task(request.match_info["node"], request.match_info["upid"], request[USER])

    def _visible_task(self, node: str, upid: str, user: str, privilege: str = "Sys.Audit") -> dict[str, Any]:
        if len(upid.split(":")) != 9 or not upid.startswith("UPID:"):
            raise param_error(upid="unable to parse worker upid")
        task: dict[str, Any] | None = self.tasks.get(upid)
        if task is None or task["node"] != node:
            raise param_error(upid="no such task")
        if not self._task_owner(user, task):
            self.require(user, "/nodes/" + node, privilege)
        return task

    async def _task_log(self, request: web.Request) -> web.Response:
        values = self._verify(request, await params(request))
        lines = [{"n": n, "t": text} for n, text in enumerate(self._get_task(request)["log"], 1)]
        start, limit = values.get("start", 0), values.get("limit", 50)
        shown = lines[start : start + limit] if limit else lines[start:]
        return web.json_response({"data": shown or [{"n": 1, "t": "no content"}], "total": len(lines)})

    async def _task_stop(self, values: dict[str, Any], user: str) -> None:
        task = self._visible_task(values["node"], values["upid"], user, "Sys.Modify")
        await self._interrupt(task["upid"])

    # ------------------------------------------------------------- lock files

    @asynccontextmanager
    async def config_lock(self, vmid: int, *, wait: float | None = None, shared: bool = False) -> AsyncIterator[None]:
        """Hold a guest's lock file; TaskError with PVE's words when it is not free within ``wait`` PVE seconds."""
        lock = self._locks.setdefault(int(vmid), FileLock())
        seconds = (self.lock_wait if wait is None else wait) * self.time_scale
        if not await lock.take(shared=shared, seconds=seconds):
            raise TaskError(lock_timeout(vmid))
        try:
            yield
        finally:
            lock.drop(shared=shared)

    @asynccontextmanager
    async def request_lock(self, vmid: int) -> AsyncIterator[None]:
        """The same for a synchronous call, where the failure is the call's own 500."""
        try:
            async with self.config_lock(vmid):
                yield
        except TaskError as error:
            raise die(str(error)) from error

    async def hold_config_lock(self, vmid: int, secs: float | None = None) -> None:
        """Somebody else holds the guest's lock file for secs PVE seconds, or until release_config_lock()."""
        if not await self._locks.setdefault(vmid, FileLock()).take(shared=False, seconds=0):
            raise TaskError(lock_timeout(vmid))
        if secs is not None:
            asyncio.get_running_loop().call_later(secs * self.time_scale, self.release_config_lock, vmid)

    def release_config_lock(self, vmid: int) -> None:
        """Release what hold_config_lock() holds."""
        self._locks[vmid].drop(shared=False)
