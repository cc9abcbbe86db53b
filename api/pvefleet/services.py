# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every process of the service is built of: the web's and the engine's alike."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import cast

from ansible_collections.pvefleet.infra.plugins.module_utils._pve.client import Connection
from flask import current_app
from sqlalchemy.exc import ArgumentError

from pvefleet import clusters
from pvefleet.access.tokens import Tokens
from pvefleet.access.vault import Vault, load_keys
from pvefleet.config import Settings, SettingsError
from pvefleet.db import SQLITE_BUSY_SECONDS, Database
from pvefleet.db.models import Cluster
from pvefleet.messages import Catalogue
from pvefleet.tasks.streams import Broadcaster


@dataclass(frozen=True)
class Services:
    """stopping is set when the process was told to end: what waits or streams must finish then."""

    settings: Settings
    db: Database
    vault: Vault
    tokens: Tokens
    catalogue: Catalogue
    stopping: threading.Event
    broadcaster: Broadcaster

    @classmethod
    def build(cls, settings: Settings, busy_seconds: int = SQLITE_BUSY_SECONDS) -> Services:
        """Opens the database (see Database) and reads the keys, which are made when there are none.

        Raises SettingsError when home or the keys cannot be used.
        """
        prepare_home(settings)
        keys = load_keys(settings)
        db, stopping = open_database(settings, busy_seconds), threading.Event()
        return cls(
            settings=settings,
            db=db,
            vault=Vault(keys),
            tokens=Tokens(keys, settings.token_lifetime, settings.refresh_lifetime),
            catalogue=Catalogue.load(),
            stopping=stopping,
            broadcaster=Broadcaster(db, stopping),
        )

    def connection(self, cluster: Cluster) -> Connection:
        """How to reach a registered cluster, with its credentials. Raises VaultError."""
        return clusters.connection(self.vault, cluster)


def prepare_home(settings: Settings) -> None:
    """Makes the home directory, for its owner alone, as is every file that this process makes from now on.

    Raises SettingsError. A directory that was there keeps its mode: what is in it is closed all the same.
    """
    os.umask(0o077)
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"Unable to make the directory {settings.home}: {error.strerror}") from None


def open_database(settings: Settings, busy_seconds: int = SQLITE_BUSY_SECONDS) -> Database:
    """Raises SettingsError for a URL that is none, or needs a package that is missing."""
    try:
        return Database(settings.effective_database_url, busy_seconds)
    except (ArgumentError, ImportError) as error:
        raise SettingsError(f"Unable to use PVEFLEET_DATABASE_URL: {error}") from None


def services() -> Services:
    """The current application's."""
    return cast(Services, current_app.extensions["pvefleet"])
