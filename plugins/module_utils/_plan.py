# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What will change. `changed` and `diff` of every module come from the plan that is applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """One thing that differs: `item` as the user knows it (`memory`, `scsi1`, `power`), before None when it is new."""

    item: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Plan:
    """The changes of one target (`server web-01`), in the order in which they are made."""

    target: str
    changes: tuple[Change, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.changes)

    def diff(self) -> dict[str, Any]:
        """Ansible's diff: what differs, and nothing else."""
        return {
            "before_header": self.target,
            "after_header": self.target,
            "before": {change.item: change.before for change in self.changes if change.before is not None},
            "after": {change.item: change.after for change in self.changes if change.after is not None},
        }
