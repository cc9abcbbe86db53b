# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress of a long step, to whoever started the run and listens."""

from __future__ import annotations

import contextlib
import json
import os

VARIABLE = "PVEFLEET_REPORT"


def listening() -> bool:
    """Whether somebody asked for progress; finding it out can cost more than telling it."""
    return bool(os.environ.get(VARIABLE))


def report(percent: int | None, message: str) -> None:
    """Appends one JSON line, percent (0 to 100, None when unknown) and message, to the file that PVEFLEET_REPORT names.

    Does nothing without that variable, or when the file cannot be written: nobody may be listening any more.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = json.dumps({"percent": percent, "message": message}, ensure_ascii=False) + "\n"
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, line.encode())  # one write, so that lines of parallel modules do not mix
        finally:
            os.close(handle)
