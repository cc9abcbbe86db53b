# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The application factory."""

from __future__ import annotations

from typing import Any, NoReturn

from flask_openapi3.models.info import Info
from flask_openapi3.models.security_scheme import SecurityScheme
from flask_openapi3.openapi import OpenAPI
from pydantic import ValidationError
from werkzeug.middleware.proxy_fix import ProxyFix

from pvefleet import idempotency, validation, wire
from pvefleet.access import guard
from pvefleet.access.limits import limiter
from pvefleet.access.permissions import OPEN
from pvefleet.access.vault import load_keys
from pvefleet.config import Settings, load_settings
from pvefleet.dialects import SERVERS
from pvefleet.families import Family, auth, clusters, health, reports, servers, tasks
from pvefleet.services import Services
from pvefleet.version import VERSION

FAMILIES: tuple[Family, ...] = (
    auth.sessions,
    auth.me,
    auth.tokens,
    servers.family,
    tasks.family,
    reports.family,
    clusters.family,
    health.health,
    reports.health,
)
# A request that waits for SQLite's lock holds up all others of its worker.
BUSY_SECONDS = 2
OPENAPI = "openapi_file"
SECURITY: dict[str, SecurityScheme | dict[str, Any]] = {
    "session": {"type": "apiKey", "in": "cookie", "name": "session"},
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
}


def create_app(settings: Settings | None = None) -> OpenAPI:
    """The service's web application, on a database that has its tables (see Database.migrate).

    Without settings they come from the environment. Raises SettingsError.
    """
    settings = settings or load_settings()
    services = Services.build(settings, busy_seconds=BUSY_SECONDS)
    app = OpenAPI(
        __name__,
        info=Info(title="PVE Fleet", version=VERSION),
        security_schemes=SECURITY,
        static_folder=None,
        doc_ui=False,
        validation_error_status=400,
        validation_error_model=SERVERS.error_model,
        validation_error_callback=_refuse,
    )
    keys = load_keys(settings)
    session_keys = [key.hex() for key in keys.derive("sessions")]
    app.config.update(
        SECRET_KEY=session_keys[0],
        SECRET_KEY_FALLBACKS=session_keys[1:],
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        # a session ends a fixed time after its login
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=settings.session_lifetime,
        MAX_CONTENT_LENGTH=settings.body_limit,
        MAX_FORM_MEMORY_SIZE=settings.body_limit,
        RATELIMIT_STORAGE_URI=settings.ratelimit_storage_uri,
    )
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.sort_keys = False  # type: ignore[attr-defined]
    # programs do not follow redirects with a body
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    if hops := settings.proxy_hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops)  # type: ignore[method-assign]

    app.extensions["pvefleet"] = services
    app.extensions["pvefleet_dialects"] = {family.prefix: family.dialect for family in FAMILIES}
    permissions = {OPENAPI: OPEN}
    for family in FAMILIES:
        app.register_api(family.blueprint)
        permissions |= family.permissions
    app.add_url_rule("/openapi.json", OPENAPI, lambda: app.api_doc)

    wire.install(app)
    guard.install(
        app,
        permissions,
        forms=frozenset(endpoint for family in FAMILIES for endpoint in family.forms),
        without_login=frozenset(clusters.family.permissions if settings.clusters_api_auth == "none" else ()),
        of_a_task=frozenset(reports.family.permissions),
    )
    idempotency.install(
        app,
        keys.derive("idempotency")[0],
        # their answers hold tokens
        never_kept=frozenset({*auth.sessions.permissions, *auth.tokens.permissions, reports.TOKEN_ENDPOINT}),
    )
    limiter.init_app(app)
    undeclared = sorted(set(app.view_functions) - set(permissions))
    if undeclared:
        raise RuntimeError(f"Routes without a declared permission: {', '.join(undeclared)}")
    return app


def _refuse(error: ValidationError) -> NoReturn:
    raise validation.invalid(error)
