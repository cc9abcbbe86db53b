# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates: made of an image or a volume, kept as they should be, removed; and the images they are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.pvefleet.infra.plugins.module_utils import _report
from ansible_collections.pvefleet.infra.plugins.module_utils._plan import Change, Plan
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import image as images
from ansible_collections.pvefleet.infra.plugins.module_utils._pve import values
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import (
    PveClient,
    PveError,
    PveNotFound,
    PveTaskFailed,
    segment,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.cluster import listing
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.device_plan import PlanError
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.errors import Unable
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.guest import Guest
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.node_tasks import wait_for_active
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server import (
    find,
    observe_config,
    server_path,
    with_name,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_checks import check_placement
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_converge import carry_out
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_create import Creation, create, prepare
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_plan import plan_server
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_work import Work, vmid_of
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.steps import Report, until
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.template_plan import (
    TEMPLATE_MARKER,
    ImageSpec,
    Record,
    TemplateSpec,
    existing,
    has_changed,
    is_half_made,
    join_notes,
    new,
    remaining,
    split_notes,
)

# So many looks in a row, a second apart, at which nothing happens to a half-made template: its run is dead.
_QUIET_LOOKS = 5


@dataclass(frozen=True)
class Result:
    """What became of it. `guest` is None once it is gone, its vmid None while it is only planned. `record`: what it is
    made of, `outdated`: whether something else was asked for; None where that is not known."""

    plan: Plan
    guest: Guest | None
    record: Record | None = None
    outdated: bool | None = None


def converge(client: PveClient, spec: TemplateSpec, *, check_mode: bool = False) -> Result:
    """Make the template what `spec` says, or remove it or an image; in check mode, tell what that would change.

    Raises Unable; whatever can be known beforehand is refused before anything is changed.
    """
    with _sentences(spec):
        work = Work(client, spec.server, report=_without_secrets(spec))
        if spec.state == "image_absent":
            return _remove_image(work, spec, check_mode)
        guest = _find(work, spec)
        if spec.state == "absent":
            return _remove(work, spec, guest, check_mode)
        return _present(work, spec, guest, check_mode)


@contextmanager
def _sentences(spec: TemplateSpec) -> Iterator[None]:
    """What is said of a server here is said of a template."""
    verb = {"present": "make", "absent": "remove", "image_absent": "remove"}[spec.state]
    thing = "image" if spec.state == "image_absent" else "template"
    hide = spec.image.without_secrets if spec.image else str
    try:
        yield
    except (PlanError, Unable) as error:
        raise Unable(hide(str(error).replace(f"server {spec.label}", f"template {spec.label}"))) from error
    except (PveError, TimeoutError) as error:
        raise Unable(hide(f"Unable to {verb} {thing} {spec.label}: {error}")) from error


def _without_secrets(spec: TemplateSpec) -> Report:
    """PVE's tasks tell the whole URL that they fetch."""
    hide = spec.image.without_secrets if spec.image else str
    return lambda percent, message: _report.report(percent, hide(message))


def _find(work: Work, spec: TemplateSpec) -> Guest | None:
    """The template, or the one that an earlier run was making. Raises Unable for anything else that is in its place."""
    server = spec.server
    guest = find(work.client, work.resources, name=server.name, vmid=server.vmid)
    if guest is not None and guest.lock == "create":
        guest = _unlocked(work, guest)
    if server.vmid is not None and server.name is not None and (guest is None or guest.name != server.name):
        others = ", ".join(str(other.vmid) for other in with_name(work.client, work.resources, server.name))
        if others:
            raise Unable(f"Unable to take template {server.vmid} for {server.name}: that is the name of {others}")
    if guest is None:
        return None
    if not guest.is_template and not is_half_made(guest):
        raise Unable(f"Unable to manage template {spec.label}: {guest.vmid} is a server ({guest.name}) and no template")
    if server.name is not None and guest.name != server.name and not (server.rename and spec.state == "present"):
        hint = "; say rename: true if that template shall get the new name" if spec.state == "present" else ""
        raise Unable(f"Unable to manage template {server.name}: {guest.vmid} is named {guest.name}{hint}")
    return guest


def _unlocked(work: Work, guest: Guest) -> Guest | None:
    for _look in until(work.spec.timeout):
        try:
            guest = observe_config(work.client, guest.node, vmid_of(guest), pool=guest.pool)
        except PveNotFound:
            return None
        if guest.lock is None:
            return guest
    raise Unable(
        f"Unable to manage template {work.spec.label}: {guest.vmid} is still locked ({guest.lock}) after "
        f"{work.spec.timeout} s; if no task works on it any more, `qm destroy {guest.vmid} --skiplock` on {guest.node} "
        "removes what is left of it"
    )


def _present(work: Work, spec: TemplateSpec, guest: Guest | None, check_mode: bool) -> Result:
    record = split_notes(guest.text("description"))[1] if guest else None
    if spec.image is not None and not _is_declared(spec.image, record):
        spec = replace(spec, image=images.complete(spec.image, spec.label))
    if guest is None:
        return _build(work, spec, None, check_mode)
    if is_half_made(guest):
        return _resume(work, spec, guest, record, check_mode)
    outdated = has_changed(record, _wanted(work, spec, guest, record))
    if outdated and spec.replace:
        return _build(work, spec, guest, check_mode)
    server = existing(spec, guest)
    result = carry_out(Work(work.client, server, resources=work.resources), check_mode=check_mode)
    return Result(Plan(f"template {spec.label}", result.plan.changes), result.guest, record, outdated)


def _is_declared(image: ImageSpec, record: Record | None) -> bool:
    """Whether the template is made of what the given checksum says: then nobody has to read the file."""
    return image.checked is not None and record is not None and record.fingerprint == image.checked


def _wanted(work: Work, spec: TemplateSpec, guest: Guest, record: Record | None) -> Record:
    """What it would be made of now."""
    if spec.image is None:
        return Record(str(spec.volume))
    if record is not None and _is_declared(spec.image, record):
        return record
    return images.wanted(work.client, spec.image, guest.node)


@dataclass(frozen=True)
class _Making:
    """How a template is made. record: what of, as far as that is known before the image is there."""

    work: Work
    creation: Creation
    record: Record
    fetch: images.Fetch | None = None

    @property
    def node(self) -> str:
        return self.creation.node


def _build(work: Work, spec: TemplateSpec, old: Guest | None, check_mode: bool) -> Result:
    """A new template, in place of the old one when there is one. That goes only when the image is there."""
    if old is not None:
        _refuse_removal(work, old, f"replace template {spec.label}")
    making = _prepare(work, spec, old)
    plan = Plan(f"template {spec.label}", tuple(_changes(spec, making, old)))
    if check_mode:
        guest = making.creation.plan.applied_to(making.creation.base)
        return Result(plan, replace(guest, vmid=old.vmid if old else spec.server.vmid), making.record, False)
    if making.fetch is not None:
        making = replace(making, record=images.fetch(work, making.fetch))
        _check_size(work, spec, making)
    source = _source(work, spec, making)
    if old is not None:
        # Should this run be killed before the new one is there, then this tells what it was to keep.
        work.report(40, f"{spec.label}: replaced with {_kept(making)}")
        _destroy(work, spec, old)
    guest = _create(spec, making, old)
    return Result(plan, _finish(making.work, spec, guest, _import_value(spec, making, source)), making.record, False)


def _create(spec: TemplateSpec, making: _Making, old: Guest | None) -> Guest:
    """The new machine. What is to be kept of the old one is nowhere else now: a failure says it."""
    try:
        return create(making.work, _without_disk(spec, making))
    except (PveError, TimeoutError, Unable) as error:
        if old is None:
            raise
        raise Unable(
            f"Unable to replace template {spec.label}: {error}; the old one is gone, and a second run makes the new "
            f"one when it is given {_kept(making)}"
        ) from error


def _kept(making: _Making) -> str:
    """The options that stand for what a new template keeps of the old one."""
    server = making.work.spec
    kept = {
        "vmid": server.vmid,
        "name": server.name,
        "tags": sorted(server.tags or ()),
        "pool": server.pool or "",
        "description": server.description or "",
    }
    return json.dumps(kept, ensure_ascii=False)


def _prepare(work: Work, spec: TemplateSpec, old: Guest | None) -> _Making:
    """Everything that can be known to fail is refused here. Changes nothing."""
    if spec.server.name is None and old is None:
        raise Unable(
            f"Unable to make template {spec.label}: there is none, and a new template needs a name; if a run that "
            "replaced it was cut off, give its name, tags, pool and description again"
        )
    if old is not None and spec.server.node not in (None, old.node):
        raise Unable(
            f"Unable to replace template {spec.label} on {old.node} by one on {spec.server.node}: remove it first"
        )
    maker = Work(work.client, new(spec, old), resources=work.resources, report=_share(40, 45))
    creation = prepare(maker)
    if spec.image is None:
        making = _Making(maker, creation, Record(str(spec.volume)))
        _check_size(work, spec, making)
        return making
    image = spec.image
    made_before = split_notes(old.text("description"))[1] if old else None
    replaced = old.vmid if old else None
    fetch = images.plan_fetch(work, image, creation.node, replaced=replaced, made_before=made_before)
    stays = fetch.row is not None and not fetch.overwrites
    known = image.checked or (images.fingerprint(fetch.row) if fetch.row is not None and stays else None)
    making = _Making(maker, creation, Record(image.volid, known), fetch)
    if stays:
        _source(work, spec, making)
        _check_size(work, spec, making)
    return making


def _changes(spec: TemplateSpec, making: _Making, old: Guest | None) -> Iterator[Change]:
    if making.fetch is not None:
        yield from making.fetch.changes
    made = f"made from {making.record.volid} on {making.node}"
    if old is not None and not is_half_made(old):
        yield Change("template", f"made from {split_notes(old.text('description'))[1]}", made)
        yield from plan_server(existing(replace(spec, disk_storage=None, disk_size=None), old), old).changes
        return
    yield Change("template", "half made" if old else None, made)
    for change in making.creation.plan.changes:
        if change.item == spec.disk:
            drive = values.parse_drive(making.creation.plan.settings[spec.disk])
            size = {"size": values.print_size(spec.disk_size)} if spec.disk_size else {}
            yield replace(change, after=values.print_drive(values.Drive(str(drive.storage), {**size, **drive.options})))
        elif change.item not in ("server", "boot_order"):
            yield change


def _without_disk(spec: TemplateSpec, making: _Making) -> Creation:
    """The machine as it is created: its disk comes when the notes tell whose it is, protection when all is done."""
    plan = making.creation.plan
    later = (spec.disk, "boot", "protection")
    settings = {key: value for key, value in plan.settings.items() if key not in later}
    notes = join_notes(settings.get("description", ""), making.record)
    settings["description"] = f"{TEMPLATE_MARKER}\n\n{notes}"
    return replace(making.creation, plan=replace(plan, settings=settings))


def _import_value(spec: TemplateSpec, making: _Making, source: str) -> str:
    drive = values.parse_drive(making.creation.plan.settings[spec.disk])
    return values.print_drive(values.Drive(f"{drive.storage}:0", {"import-from": source, **drive.options}))


def _source(work: Work, spec: TemplateSpec, making: _Making) -> str:
    if making.fetch is None:
        return making.record.volid
    return images.import_source(work.client, making.fetch.image, making.node, spec.label)


def _check_size(work: Work, spec: TemplateSpec, making: _Making) -> None:
    """Whether the volume or file can be read, and is not larger than the disk is to be."""
    size = images.disk_size(work.client, making.record.volid, making.node)
    if size is not None and spec.disk_size is not None and size > spec.disk_size:
        raise Unable(
            f"Unable to make template {spec.label}: {making.record.volid} holds a disk of {values.print_size(size)}, "
            f"more than disk_size with its {values.print_size(spec.disk_size)}, and PVE disks cannot shrink"
        )


def _resume(work: Work, spec: TemplateSpec, guest: Guest, record: Record | None, check_mode: bool) -> Result:
    """Goes on with a template that an earlier run had begun, or makes it anew when that had not come to its disk."""
    if not check_mode:
        now = _unattended(work, guest)
        if now is None or not is_half_made(now):
            return _present(work, spec, now, check_mode)
        guest = now
    changed = has_changed(record, _wanted(work, spec, guest, record))
    if changed or "import" in remaining(spec, guest):
        return _build(work, spec, guest, check_mode)
    settled = replace(spec, disk_size=None)
    if check_mode:
        foretold = plan_server(existing(settled, guest), guest)
        check_placement(work, foretold, guest.node)
        more = foretold.changes
    else:
        guest = _finish(Work(work.client, spec.server, resources=work.resources), spec, guest, "")
        result = carry_out(Work(work.client, existing(settled, guest), resources=work.resources))
        more, guest = result.plan.changes, result.guest or guest
    changes = (Change("creation", "interrupted", "finished"), *more)
    return Result(Plan(f"template {spec.label}", changes), guest, record, False)


def _unattended(work: Work, guest: Guest) -> Guest | None:
    """The half-made template when nothing is done to it any more: PVE goes on with what a run that was killed had
    asked for, and another run may be making it. None once it is gone, or it is finished."""
    last, looks = guest.digest, 0
    for _look in until(work.spec.timeout):
        busy = wait_for_active(work.client, guest.node, work.spec.timeout, vmid=guest.vmid)
        now = _unlocked(work, guest)
        if now is None or not is_half_made(now):
            return now
        looks = 1 if busy or now.digest != last else looks + 1
        if looks > _QUIET_LOOKS:
            return now
        last = now.digest
    raise TimeoutError(f"another run still works on {guest.vmid} after {work.spec.timeout} s")


def _finish(work: Work, spec: TemplateSpec, guest: Guest, import_value: str) -> Guest:
    """What is left to do, step by step, each seen to be done."""
    done = set()
    doings = {"import": _import, "resize": _resize, "convert": _convert, "finish": _write_notes}
    try:
        while is_half_made(guest):
            step = remaining(spec, guest)[0]
            if step in done:
                raise Unable(f"PVE did not {step} it, though it said so")
            done.add(step)
            doings[step](work, spec, guest, import_value)
            guest = observe_config(work.client, guest.node, vmid_of(guest), pool=guest.pool)
    except (PveError, TimeoutError, Unable) as error:
        if isinstance(error, PveNotFound) and work.config(guest.node, vmid_of(guest)) is None:
            raise Unable(
                f"Unable to finish template {spec.label}: somebody else removed {guest.vmid} while it was being made; "
                "another run makes it anew"
            ) from error
        raise Unable(
            f"Unable to finish template {spec.label}: {error}; it is there as {guest.vmid}, and a second run goes on"
        ) from error
    return guest


def _import(work: Work, spec: TemplateSpec, guest: Guest, import_value: str) -> None:
    vmid = vmid_of(guest)

    def landed() -> bool | None:
        wait_for_active(work.client, guest.node, work.spec.timeout, vmid=vmid)
        return True if spec.disk in (work.config(guest.node, vmid) or {}) else None

    # The digest keeps a call whose answer was lost from importing twice.
    params = {spec.disk: import_value, "boot": values.print_boot((spec.disk,)), "digest": guest.digest}
    storage = str(values.parse_drive(import_value).storage)
    path = f"{server_path(guest.node, vmid)}/config"
    try:
        work.run("POST", path, params, landed=landed, percent=(45, 85), storages={storage})
    except PveTaskFailed as error:
        if "file change by other user" not in (error.exitstatus or "") or not landed():
            raise


def _resize(work: Work, spec: TemplateSpec, guest: Guest, _import_value: str) -> None:
    size = spec.disk_size or 0

    def landed() -> bool | None:
        text = (work.config(guest.node, vmid_of(guest)) or {}).get(spec.disk)
        return True if text is not None and (values.parse_drive(str(text)).size or 0) >= size else None

    params = {"disk": spec.disk, "size": values.print_size(size)}
    path = f"{server_path(guest.node, guest.vmid)}/resize"
    work.run("PUT", path, params, landed=landed, percent=(85, 90))


def _convert(work: Work, spec: TemplateSpec, guest: Guest, _import_value: str) -> None:
    def landed() -> bool | None:
        now = observe_config(work.client, guest.node, vmid_of(guest))
        return True if remaining(spec, now) == ("finish",) else None

    # Of a template whose conversion was cut off it is the disk that is asked for.
    params = {"disk": spec.disk} if guest.is_template else {}
    path = f"{server_path(guest.node, guest.vmid)}/template"
    work.run("POST", path, params, landed=landed, percent=(90, 95))


def _write_notes(work: Work, spec: TemplateSpec, guest: Guest, _import_value: str) -> None:
    """The last step: then nothing tells any more that it was not finished."""
    notes = join_notes(*split_notes(guest.text("description")))
    params = {"description": notes, "protection": spec.server.scalars.get("protection"), "digest": guest.digest}

    def landed() -> bool | None:
        now = work.config(guest.node, vmid_of(guest)) or {}
        return True if str(now.get("description", "")).strip() == notes else None

    work.run("PUT", f"{server_path(guest.node, guest.vmid)}/config", params, landed=landed, percent=(95, 99))


def _share(low: int, high: int) -> Report:
    """Progress of a part of the work."""

    def report(percent: int | None, message: str) -> None:
        _report.report(None if percent is None else low + percent * (high - low) // 100, message)

    return report


def _remove(work: Work, spec: TemplateSpec, guest: Guest | None, check_mode: bool) -> Result:
    target = f"template {spec.label}"
    if guest is None:
        return Result(Plan(target), None)
    _refuse_removal(work, guest, f"remove {target}")
    plan = Plan(target, (Change("template", f"{guest.name} ({guest.vmid}) on {guest.node}", None),))
    if not check_mode:
        wait_for_active(work.client, guest.node, work.spec.timeout, vmid=guest.vmid)
        _destroy(work, spec, guest)
    return Result(plan, None)


def _refuse_removal(work: Work, guest: Guest, what: str) -> None:
    if guest.is_protected:
        raise Unable(f"Unable to {what}: its protection is on")
    clones = linked_clones(work, guest)
    if clones:
        raise Unable(f"Unable to {what}: {', '.join(clones)} is a linked clone of it")


def linked_clones(work: Work, guest: Guest) -> list[str]:
    """The guests whose disks need the template's, where their volumes' names tell it; LVM-thin's do not."""
    found = set()
    bases = [drive.volume for drive in guest.disks().values() if drive.storage]
    for storage in sorted({base.partition(":")[0] for base in bases}):
        path = f"/nodes/{segment(guest.node)}/storage/{segment(storage)}/content"
        for row in listing(work.client, path, {"content": "images"}):
            if any(str(row.get("volid")).startswith(f"{base}/") for base in bases):
                found.add(int(row.get("vmid") or 0))
    return [f"{(work.resources.guest(vmid) or {}).get('name') or 'a guest'} ({vmid})" for vmid in sorted(found)]


def _destroy(work: Work, spec: TemplateSpec, guest: Guest) -> None:
    vmid = vmid_of(guest)

    def gone() -> bool | None:
        return True if work.config(guest.node, vmid) is None else None

    # An import that was killed leaves a volume that no config names.
    params = {"destroy-unreferenced-disks": True if is_half_made(guest) else None}
    try:
        work.run("DELETE", server_path(guest.node, vmid), params, landed=gone, percent=(40, 45))
    except PveNotFound:
        return  # somebody else was faster
    except PveTaskFailed as error:
        if "in use by linked clone" not in (error.exitstatus or ""):
            raise
        raise Unable(
            f"Unable to remove template {spec.label}: linked clones need its disks ({error.exitstatus})"
        ) from error
    if not gone():
        raise Unable(f"Unable to remove template {spec.label}: it is still there")


def _remove_image(work: Work, spec: TemplateSpec, check_mode: bool) -> Result:
    image = spec.image
    if image is None:
        raise ValueError("image_absent without an image")
    holders = [node for node in _nodes_with(work, spec, image) if images.find_file(work.client, image, node)]
    plan = Plan(f"image {image.volid}")
    if not holders:
        return Result(plan, None)
    if len(holders) > 1:
        raise Unable(f"Unable to remove image {image.volid}: {', '.join(holders)} each have one; give the node")
    node = holders[0]
    images.refuse_used(work, image, node, "remove")
    plan = replace(plan, changes=(Change("image", f"{image.volid} on {node}", None),))
    if not check_mode:
        images.delete(work, image, node)
    return Result(plan, None)


def _nodes_with(work: Work, spec: TemplateSpec, image: ImageSpec) -> list[str]:
    """The nodes on which to look for the file."""
    nodes = work.resources.nodes()
    node = spec.server.node
    if node is not None:
        if not nodes.get(node):
            state = "is offline" if node in nodes else f"does not exist, only {', '.join(sorted(nodes))}"
            raise Unable(f"Unable to remove image {image.volid}: node {node} {state}")
        images.check_storage(work, image, node)
        return [node]
    online = sorted(name for name, is_online in nodes.items() if is_online)
    rows: dict[str, Any] = {name: work.resources.storages(name).get(image.storage) for name in online}
    having = [name for name in online if rows[name] is not None]
    if not having:
        raise Unable(f"Unable to remove image {image.volid}: no node that is online has a storage {image.storage}")
    return having[:1] if rows[having[0]].get("shared") else having
