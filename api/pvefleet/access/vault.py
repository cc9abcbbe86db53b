# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's keys, and secrets at rest under them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pvefleet.config import Settings, SettingsError


class VaultError(RuntimeError):
    """What was stored cannot be read with the keys at hand."""


class Keys:
    """Fernet keys, newest first. Each purpose has keys of its own, derived from them."""

    def __init__(self, fernet: list[bytes]) -> None:
        """Raises ValueError for a key that is none."""
        self.fernet = MultiFernet([Fernet(key) for key in fernet])
        self._roots = fernet

    def derive(self, purpose: str) -> list[bytes]:
        """32 bytes for each key, newest first."""
        return [
            HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(root) for root in self._roots
        ]


class Vault:
    """Encrypts with the newest key, reads with any of them."""

    def __init__(self, keys: Keys) -> None:
        self._fernet = keys.fernet

    def encrypt(self, secret: dict[str, Any]) -> bytes:
        return self._fernet.encrypt(json.dumps(secret).encode())

    def decrypt(self, data: bytes) -> dict[str, Any]:
        """Raises VaultError."""
        try:
            plain = json.loads(self._fernet.decrypt(data))
        except InvalidToken:
            raise VaultError("Unable to decrypt stored credentials: they were stored under another key") from None
        if not isinstance(plain, dict):
            raise VaultError("Unable to decrypt stored credentials: they are damaged")
        return plain


def load_keys(settings: Settings) -> Keys:
    """The keys of the setting, or of the key file, which is made when it is missing. Raises SettingsError."""
    if settings.secret_key is not None:
        source, text = "PVEFLEET_SECRET_KEY", settings.secret_key.get_secret_value().replace(",", "\n")
    else:
        path = settings.key_file
        source, text = str(path), _read_or_make(path)
    lines = [line.strip() for line in text.splitlines()]
    keys = [line.encode() for line in lines if line and not line.startswith("#")]
    try:
        usable = Keys(keys) if keys else None
    except ValueError:
        usable = None
    if usable is None:
        raise SettingsError(
            f"{source} must hold Fernet keys (32 bytes in URL-safe base64), newest first: it has none or a broken one"
        )
    # only now: of a file that holds no keys nobody should change the mode
    if settings.secret_key is None and settings.key_file.stat().st_mode & 0o007:
        raise SettingsError(f"{source} is open to every user of this machine: chmod 600 {source}")
    return usable


def _read_or_make(path: Path) -> str:
    try:
        with contextlib.suppress(FileExistsError):
            _make(path)
        return path.read_text(errors="replace")
    except OSError as error:
        raise SettingsError(f"Unable to read the keys in {path}: {error.strerror}") from None


def _make(path: Path) -> None:
    """The whole file or nothing: another process may look for it at this moment."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink()
