# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings: one typed model, filled from the environment (PVEFLEET_*) and the command line."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import limits
from limits.errors import ConfigurationError
from limits.storage import storage_from_string
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.networks import IPvAnyNetwork
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "PVEFLEET_"
# What the collection reads for itself, also in the service's own runs.
_OF_THE_COLLECTION = re.compile("API_.*|CA_PATH|CLUSTER|REGISTRY|REPORT|RUN|TLS_FINGERPRINT|VALIDATE_CERTS")


class SettingsError(ValueError):
    """The settings cannot be used. str() says which one and why, in one line each."""


class Settings(BaseSettings):
    """Everything that can be set. The descriptions are what docs/settings.md shows."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    home: Path = Field(
        default_factory=lambda: Path("~/.local/state/pvefleet"),
        validate_default=True,
        description="Directory of everything that is kept: database, key, locks, runs. Made with mode 0700.",
    )
    database_url: str = Field(
        default="",
        description="SQLAlchemy URL of the database. Empty means SQLite in the file pvefleet.db of the home directory. "
        "A database belongs to one service: another one with another home would take its running tasks for lost ones.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    workers: int = Field(default=1, ge=1, le=64, description="Web worker processes; each serves thousands of streams.")
    proxy_hops: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Reverse proxies in front whose X-Forwarded-For, -Proto and -Host are believed. 0 believes none.",
    )
    body_limit: int = Field(default=1024 * 1024, ge=1024, description="Largest request body, in bytes.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")

    admin_password: SecretStr | None = Field(
        default=None,
        description="Password of the user admin, who is made when there is no user yet. Without it one is generated"
        " and printed once. Never changes an existing user.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="Fernet keys that protect credentials, sessions and tokens, separated by commas, newest first."
        " Without it they are read from secret_key_file.",
    )
    secret_key_file: Path | None = Field(
        default=None,
        description="File with the Fernet keys, one a line, newest first. Default is secret.key in the home directory,"
        " made with mode 0600 when it is missing. Without its keys stored credentials cannot be read: back it up.",
    )
    session_lifetime: timedelta = Field(
        default=timedelta(hours=12), description="Time after a login when a browser session ends."
    )
    token_lifetime: timedelta = Field(default=timedelta(hours=1), description="Lifetime of a bearer token.")
    refresh_lifetime: timedelta = Field(
        default=timedelta(days=14),
        description="Time after a login until which bearer tokens can be refreshed, and those for one task are good.",
    )
    login_rate: str = Field(
        default="10/minute",
        description="How many failed logins an address may have: a count, / and second, minute, hour or day.",
    )
    report_rate: str = Field(
        default="100/minute",
        description="How many requests under /api/v1/tasks a user may send from one address,"
        " and how many a run with a token of its own.",
    )
    log_rate: str = Field(
        default="1000/minute",
        description="How many log lines of tasks a user may report from one address,"
        " and how many a run with a token of its own.",
    )
    ratelimit_storage_uri: str = Field(
        default="memory://",
        description="Where such counts are kept. memory:// counts in each web worker for itself; a redis:// URL counts"
        " for all of them (needs the Python package redis).",
    )

    clusters_api_auth: Literal["required", "none"] = Field(
        default="required",
        description="none lets anyone on this machine use /api/v1/clusters without logging in. Refused unless host is a"
        " loopback address.",
    )
    allowed_networks: Annotated[tuple[IPvAnyNetwork, ...], NoDecode] = Field(
        default=(),
        description="Networks, separated by commas, in which the endpoints of clusters must lie. Empty allows all"
        " but link-local and metadata addresses, which are refused always.",
    )

    max_runs: int = Field(default=4, ge=1, le=256, description="Playbooks that run at once.")
    task_deadline: int = Field(
        default=3600, ge=1, le=604_800, description="Seconds after which a run is ended and its task fails."
    )
    report_silence: int = Field(
        default=86_400,
        ge=60,
        le=31_536_000,
        description="Seconds without a report after which a reported task that is PROCESSING fails.",
    )
    keep_finished_tasks_days: int = Field(default=90, ge=1, description="Days for which finished tasks are kept.")
    keep_events_hours: int = Field(
        default=24, ge=1, description="Hours for which a stream can be resumed with Last-Event-ID."
    )
    observe_interval: float = Field(
        default=5.0, ge=0.2, le=3600, description="Seconds between two looks at each cluster's inventory."
    )
    templates: Annotated[dict[str, int], NoDecode] = Field(
        default_factory=dict,
        description='Template vmid for each server role, as JSON: {"web": 9000, "default": 9001}.',
    )

    @field_validator("home", "secret_key_file", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @field_validator("login_rate", "report_rate", "log_rate")
    @classmethod
    def _a_rate(cls, value: str) -> str:
        limits.parse_many(value)
        return value

    @field_validator("ratelimit_storage_uri")
    @classmethod
    def _a_storage(cls, value: str) -> str:
        try:
            storage_from_string(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("allowed_networks", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("templates", mode="before")
    @classmethod
    def _read_json(cls, value: Any) -> Any:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError) as error:
            raise ValueError(f"Not JSON: {error}") from None

    @model_validator(mode="after")
    def _no_open_door(self) -> Self:
        if self.clusters_api_auth == "none" and (not is_loopback(self.host) or self.proxy_hops):
            raise ValueError(
                f"PVEFLEET_CLUSTERS_API_AUTH=none needs a loopback address to listen on and no proxy in front:"
                f" host is {self.host}, proxy_hops {self.proxy_hops}"
            )
        return self

    @property
    def key_file(self) -> Path:
        return self.secret_key_file or self.home / "secret.key"

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home / 'pvefleet.db'}"


def is_loopback(host: str) -> bool:
    """True for localhost and for addresses that only this machine reaches; a name is not resolved."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment, those given as overrides (None: not given) before it.

    Raises SettingsError with one line for each setting that cannot be used.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(_problem(item["loc"], item["msg"]) for item in error.errors())) from None


def unknown_variables() -> list[str]:
    """The names of variables in the environment that look like settings and are none: misspelled ones."""
    return sorted(
        name
        for name in os.environ
        if name.upper().startswith(PREFIX)
        and name[len(PREFIX) :].lower() not in Settings.model_fields
        and not _OF_THE_COLLECTION.fullmatch(name[len(PREFIX) :])
    )


def environment(settings: Settings) -> dict[str, str]:
    """The environment for a child process that shall have the same settings. The admin's password stays behind."""
    inherited = {name: value for name, value in os.environ.items() if name != f"{PREFIX}ADMIN_PASSWORD"}
    return {
        **inherited,
        f"{PREFIX}HOME": str(settings.home),
        f"{PREFIX}HOST": settings.host,
        f"{PREFIX}PORT": str(settings.port),
    }


def _problem(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{PREFIX}{str(location[0]).upper()}: {message}" if location else message
