#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs ansible-test sanity on the working tree. ansible-test insists on a path that ends in
# ansible_collections/pvefleet/infra inside a git work tree, so it gets a copy of what git would commit.
# Its virtual environments live under .cache/, nothing is written outside the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
cache=$checkout/.cache/sanity
mkdir -p "$cache"

# Two runs would build the same virtual environments.
exec 9>"$cache/lock"
flock 9

tree=$(mktemp -d "$cache/tree.XXXXXX")
trap 'rm -rf "$tree"' EXIT
target=$tree/ansible_collections/pvefleet/infra
mkdir -p "$target"
# Files deleted but not yet committed are still listed: copy what exists.
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
    tar --create --null --files-from=- | tar --extract --directory="$target"

# ansible-test would download pip's bootstrap script from a server of its own. Ours gets the same pip from
# the package index, which is all that a machine needs to reach.
export HOME=$cache PIP_QUIET=1
mkdir -p "$HOME/.ansible/test/cache"
pip=$(.venv/bin/python -c '
import sys
from ansible_test._internal.host_configs import NativePythonConfig
from ansible_test._internal.python_requirements import get_venv_packages
print(get_venv_packages(NativePythonConfig(version="%d.%d" % sys.version_info[:2]))["pip"])')
cp tests/get_pip.py "$HOME/.ansible/test/cache/get_pip_${pip//./_}.py"

cd "$target"
git init --quiet
git add --all
# One Python, the one in use: others that happen to be on the machine are not the subject.
python=$("$checkout/.venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
PATH=$checkout/.venv/bin:$PATH ansible-test sanity --color no --python "$python" "$@"
