# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The `pvefleet` command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from sqlalchemy import select

from pvefleet import awx as awx_files
from pvefleet import serve as serving
from pvefleet import settings_page
from pvefleet.access import users
from pvefleet.access.permissions import ROLES
from pvefleet.config import SettingsError, load_settings
from pvefleet.db import Database, DatabaseError
from pvefleet.db.models import User
from pvefleet.services import open_database, prepare_home
from pvefleet.version import VERSION

_home = click.option("--home", type=click.Path(path_type=Path), help="Directory of the database and the keys.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(version)s")
def main() -> None:
    """Proxmox VE clusters over HTTP. What can be set by PVEFLEET_* variables is shown by: pvefleet settings."""


@main.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes any free one.")
@_home
def serve(host: str | None, port: int | None, home: Path | None) -> None:
    """Run the service until SIGTERM or Ctrl-C."""
    with _sentences():
        serving.serve(load_settings(host=host, port=port, home=home))


@main.command()
def settings() -> None:
    """Print the page about all settings."""
    click.echo(settings_page.render(), nl=False)


@main.group()
def user() -> None:
    """Users of the service."""


@user.command()
@click.argument("name")
@click.option("--role", type=click.Choice(list(ROLES)), default="viewer", show_default=True)
@click.option("--email")
@_home
def add(name: str, role: str, email: str | None, home: Path | None) -> None:
    """Make the user NAME. The password is asked for, or read from standard input."""
    with _sentences(), _database(home) as db:
        password = _password()
        with db.write() as session:
            users.create_user(session, name, password, role=role, email=email)


@user.command()
@click.argument("name")
@_home
def passwd(name: str, home: Path | None) -> None:
    """Give the user NAME another password, and end their sessions and tokens."""
    with _sentences(), _database(home) as db:
        password = _password()
        with db.write() as session:
            found = users.find_user(session, name)
            if found is None:
                raise users.UserError(f"There is no user {name}")
            users.set_password(session, found, password)


@user.command("list")
@_home
def list_users(home: Path | None) -> None:
    """Print each user's name, role and whether they are active."""
    with _sentences(), _database(home) as db, db.read() as session:
        for row in session.scalars(select(User).order_by(User.username)):
            click.echo(f"{row.username}\t{row.role}\t{'active' if row.is_active else 'inactive'}")


@main.group()
def awx() -> None:
    """What AWX needs to offer the playbooks."""


@awx.command("export")
@click.option("--to", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Directory.")
def export_awx(folder: Path) -> None:
    """Write the job templates with their surveys, and the credential type; docs/awx.md says how to import them."""
    with _sentences():
        for path in awx_files.export(folder):
            click.echo(path)


@contextmanager
def _database(home: Path | None) -> Iterator[Database]:
    """The database with all its tables, whether the service has ever run or not."""
    chosen = load_settings(home=home)
    prepare_home(chosen)
    db = open_database(chosen)
    try:
        db.migrate()
        yield db
    finally:
        db.dispose()


@contextmanager
def _sentences() -> Iterator[None]:
    """What the user can put right is told in a sentence, with exit status 1."""
    try:
        yield
    except (SettingsError, serving.ServeError, users.UserError, DatabaseError, awx_files.AwxError) as error:
        raise click.ClickException(str(error)) from None


def _password() -> str:
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return password
    return sys.stdin.readline().rstrip("\n")
