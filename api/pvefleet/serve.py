# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`pvefleet serve`: prepares the home, then keeps the web and the engine running."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import click
from sqlalchemy import exists, select

from pvefleet.access.users import create_user
from pvefleet.config import Settings, environment, unknown_variables
from pvefleet.db.models import User
from pvefleet.logs import configure
from pvefleet.services import Services, prepare_home
from pvefleet.supervisor import Child, supervise

logger = logging.getLogger(__name__)

ADMIN = "admin"
BACKLOG = 2048


class ServeError(Exception):
    """The service cannot start; str() says why in one sentence."""


def serve(settings: Settings) -> None:
    """Returns after SIGTERM or SIGINT. Raises ServeError, SettingsError."""
    configure(settings)
    for name in unknown_variables():
        logger.warning("%s is set, but there is no such setting: see pvefleet settings", name)
    with listen(settings.host, settings.port) as listener, only_one(settings):
        services = Services.build(settings)
        services.db.migrate()
        password = make_admin(services)
        services.db.dispose()
        port = listener.getsockname()[1]
        if password is not None:
            click.echo(f"Made the user {ADMIN} with the password: {password}")
            click.echo("It is not shown again; pvefleet user passwd admin sets another one.")
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        click.echo(f"PVE Fleet listens on http://{host}:{port}")
        children = [
            Child("web", "pvefleet.web", [str(listener.fileno())], [listener.fileno()]),
            Child("engine", "pvefleet.engine"),
        ]
        supervise(children, environment(settings.model_copy(update={"port": port})))


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. It is there before anything else is done, and stays while the web is started again."""
    with ExitStack() as opened:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _canonname, address = found[0]
            listener = opened.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Inherited by its connections. Answers go out as head and body, and the second would wait 40 ms for the
            # acknowledgement of the first; so would each event of a stream.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            raise ServeError(f"Unable to listen on {host}:{port}: {error.strerror}") from None
        yield listener


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Holds <home>/serve.lock: two services on one home would run every task twice."""
    try:
        prepare_home(settings)
        lock = os.open(settings.home / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServeError(f"Unable to use the directory {settings.home}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ServeError(f"Unable to serve {settings.home}: another pvefleet serve does already") from None
    else:
        yield
    finally:
        os.close(lock)


def make_admin(services: Services) -> str | None:
    """Makes the first user, if there is none. The password, when it was generated here."""
    given = services.settings.admin_password
    password = given.get_secret_value() if given is not None else secrets.token_urlsafe(15)
    with services.db.write() as session:
        if session.scalar(select(exists().select_from(User))):
            return None
        create_user(session, ADMIN, password, role="admin")
    return password if given is None else None
