# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for pip's bootstrap script (see sanity.sh): the pip that Python ships fetches the wanted one."""

from __future__ import annotations

import subprocess
import sys

# ansible-test hands over the packages and options of the original, of which pip does not know these.
ONLY_GET_PIP = {"--no-setuptools", "--no-wheel"}
arguments = [argument for argument in sys.argv[1:] if argument not in ONLY_GET_PIP]

subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], check=True, stdout=subprocess.DEVNULL)
subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", *arguments], check=True)
