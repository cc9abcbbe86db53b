# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A call with a file in its form, which is read while it is sent: it may be larger than memory."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# A connection's timeout is for each block that is sent.
BLOCK = 64 * 1024


@dataclass(frozen=True)
class UploadFile:
    """A file of this machine as the last parameter of a call. name: what it is called over there, without quotes.

    progress: is told each new percent of it that is sent.
    """

    path: str
    name: str
    progress: Callable[[int], None] | None = None


class Form:
    """The multipart/form-data of a call's parameters, in their order, for pveproxy reads them in one order only."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        """OSError when the file cannot be read."""
        self._boundary = secrets.token_hex(16)
        self._file: UploadFile | None = None
        head = ""
        for name, value in params.items():
            head += f'--{self._boundary}\r\nContent-Disposition: form-data; name="{name}"'
            if isinstance(value, UploadFile):
                self._file = value
                head += f'; filename="{value.name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
            else:
                head += f"\r\n\r\n{value}\r\n"
        self._head = head.encode()
        self._tail = f"\r\n--{self._boundary}--\r\n".encode()
        self._size = os.path.getsize(self._file.path) if self._file else 0

    @property
    def content_type(self) -> str:
        return f"multipart/form-data; boundary={self._boundary}"

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        if self._file is not None:
            yield from self._blocks(self._file)
        yield self._tail

    def _blocks(self, file: UploadFile) -> Iterator[bytes]:
        sent = told = 0
        with open(file.path, "rb") as handle:
            # not more than was announced, should it grow meanwhile
            while block := handle.read(min(BLOCK, self._size - sent)):
                yield block
                sent += len(block)
                percent = sent * 100 // self._size
                if file.progress is not None and percent > told:
                    told = percent
                    file.progress(percent)


def has_file(params: Mapping[str, Any] | None) -> bool:
    return any(isinstance(value, UploadFile) for value in (params or {}).values())
