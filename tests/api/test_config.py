# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings from the environment, and the page about them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pvefleet import settings_page
from pvefleet.config import Settings, SettingsError, environment, is_loopback, load_settings, unknown_variables


def test_the_environment_and_what_comes_before_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PVEFLEET_HOME", str(tmp_path))
    monkeypatch.setenv("PVEFLEET_PORT", "9000")
    monkeypatch.setenv("PVEFLEET_SESSION_LIFETIME", "PT1H")
    monkeypatch.setenv("PVEFLEET_TEMPLATES", '{"web": 9000}')
    monkeypatch.setenv("PVEFLEET_ALLOWED_NETWORKS", "10.0.0.0/8, fd00::/8")
    monkeypatch.setenv("PVEFLEET_WORKERS", "")
    settings = load_settings(port=8081, host=None)
    assert settings.port == 8081
    assert settings.home == tmp_path
    assert settings.session_lifetime == timedelta(hours=1)
    assert settings.templates == {"web": 9000}
    assert [str(network) for network in settings.allowed_networks] == ["10.0.0.0/8", "fd00::/8"]
    assert settings.workers == 1
    assert settings.effective_database_url == f"sqlite:///{tmp_path}/pvefleet.db"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("WORKERS", "0"),
        ("LOGIN_RATE", "often"),
        ("RATELIMIT_STORAGE_URI", "floppy://"),
        ("ALLOWED_NETWORKS", "10.0.0.0/99"),
        ("CLUSTERS_API_AUTH", "maybe"),
        ("TEMPLATES", '{"web": "x"}'),
        ("TEMPLATES", "{x"),
        ("SESSION_LIFETIME", "soon"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PVEFLEET_{name}", value)
    with pytest.raises(SettingsError, match=f"^PVEFLEET_{name}: "):
        load_settings()


def test_variables_that_are_no_settings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_RUN", "MAX_RUNS", "API_HOST", "CLUSTER", "REGISTRY", "REPORT", "RUN", "CA_PATH", "CLUSTERS"):
        monkeypatch.setenv(f"PVEFLEET_{name}", "4")
    assert unknown_variables() == ["PVEFLEET_CLUSTERS", "PVEFLEET_MAX_RUN"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "[::1]"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)
    assert load_settings(clusters_api_auth="none", host=host).clusters_api_auth == "none"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.com", "localhost.example.com", ""])
def test_an_open_clusters_api_stays_on_this_machine(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SettingsError, match="PVEFLEET_CLUSTERS_API_AUTH=none needs a loopback address"):
        load_settings(clusters_api_auth="none", host=host)


def test_an_open_clusters_api_has_no_proxy_in_front() -> None:
    with pytest.raises(SettingsError, match="no proxy in front"):
        load_settings(clusters_api_auth="none", proxy_hops=1)


def test_children_get_the_settings_but_not_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PVEFLEET_ADMIN_PASSWORD", "hunter2 hunter2")
    monkeypatch.setenv("PVEFLEET_WORKERS", "3")
    given = environment(load_settings(home=tmp_path, port=1234))
    assert "hunter2 hunter2" not in given.values()
    assert (given["PVEFLEET_HOME"], given["PVEFLEET_PORT"], given["PVEFLEET_WORKERS"]) == (str(tmp_path), "1234", "3")


def test_every_setting_is_described_and_the_page_is_of_today() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == settings_page.render(), "run: pvefleet settings > docs/settings.md"
