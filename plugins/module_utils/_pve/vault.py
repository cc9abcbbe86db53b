# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible Vault as a module can reach it: by the command ansible-vault, with the password that it is configured for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

HEADER = "$ANSIBLE_VAULT;"
_HELP = (
    "a module has no part in --ask-vault-pass or --vault-password-file: set ANSIBLE_VAULT_PASSWORD_FILE,"
    " or give the secret as {env: NAME} or {file: PATH}"
)


class VaultText(str):
    """A value that was written with the tag !vault: ciphertext, kept as it is until it is needed."""


def decrypt(ciphertext: str) -> str:
    """The plaintext. ValueError, with what to do, when it cannot be had."""
    return _vault(ciphertext, "decrypt")


def encrypt(plaintext: str) -> str:
    """Ciphertext for the configured password. ValueError, with what to do, when there is none."""
    return _vault(plaintext, "encrypt")


def _vault(text: str, action: str) -> str:
    beside = os.path.dirname(sys.executable)
    command = shutil.which("ansible-vault", path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))
    if command is None:
        raise ValueError(f"the command ansible-vault is not installed here, and {_HELP}")
    try:
        # a session of its own has no terminal to ask for a password on
        done = subprocess.run(  # noqa: S603 - a fixed command line
            [command, action, "--output", "-"],
            input=text.encode(),
            capture_output=True,
            start_new_session=True,
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"ansible-vault did not answer within 60 s; {_HELP}") from None
    if done.returncode != 0:
        raise ValueError(f"ansible-vault could not {action} it; {_HELP}")
    return done.stdout.decode()
