# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the servers of a fleet are asked to be: defaults and their own, merged, then completed as for one server."""

from __future__ import annotations

from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.pvefleet.infra.plugins.doc_fragments.fleet import ModuleDocFragment
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.fleet_spec import (
    FLEET_OPTIONS,
    completed,
    fleet_spec,
    given_options,
    merged,
)
from ansible_collections.pvefleet.infra.plugins.module_utils._pve.server_spec import SERVER_OPTIONS, server_spec
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.sampled_from(["a", "b", "c"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(0, 3) | st.lists(st.integers(0, 2), max_size=2),
    lambda below: st.dictionaries(KEYS, below, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(KEYS, VALUES, max_size=3)
SERVERS = st.fixed_dictionaries(
    {"name": st.just("web-01")},
    optional={
        "memory": st.sampled_from([512, 1024]),
        "state": st.sampled_from(["present", "started", "absent"]),
        "force": st.booleans(),
        "clone": st.fixed_dictionaries({"template": st.just("base")}, optional={"full": st.booleans()}),
        "cloud_init": st.fixed_dictionaries(
            {}, optional={"user": st.just("ops"), "update_password": st.sampled_from(["on_create", "always"])}
        ),
        "tags": st.lists(st.sampled_from(["a", "b"])),
    },
)


@given(MAPPINGS)
def test_merging_with_nothing_only_drops_what_says_nothing(own: dict[str, Any]) -> None:
    assert merged({}, own) == merged(own, {}) == without_none(own)


@given(MAPPINGS, MAPPINGS)
def test_the_own_value_wins_and_nothing_else_is_lost(defaults: dict[str, Any], own: dict[str, Any]) -> None:
    result = merged(defaults, own)
    for key in defaults.keys() | own.keys():
        low, high = defaults.get(key), own.get(key)
        if isinstance(low, dict) and isinstance(high, dict):
            assert result[key] == merged(low, high)
        elif high is not None:
            assert result[key] == without_none(high)
        elif low is not None:
            assert result[key] == without_none(low)
        else:
            assert key not in result


def without_none(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: without_none(item) for key, item in value.items() if item is not None}


@given(SERVERS)
def test_a_server_of_a_fleet_is_what_proxmox_server_makes_of_the_same_options(server: dict[str, Any]) -> None:
    """Ansible itself fills in the defaults there; here it is done after the merging."""
    alone = ArgumentSpecValidator(SERVER_OPTIONS).validate(server)
    assert not alone.error_messages
    listed = ArgumentSpecValidator(FLEET_OPTIONS).validate({"servers": [server]})
    assert not listed.error_messages
    assert fleet_spec(listed.validated_parameters).servers == (server_spec(alone.validated_parameters),)


@given(SERVERS, SERVERS)
def test_it_does_not_matter_where_an_option_is_given(one: dict[str, Any], other: dict[str, Any]) -> None:
    defaults = {key: value for key, value in one.items() if key != "name"}
    own = {**other, "name": "web-01"}
    options = {"workers": 1, "per_node": 1, "per_storage": 1}
    apart = fleet_spec({"servers": [own], "defaults": defaults, **options})
    together = fleet_spec({"servers": [merged(defaults, own)], **options})
    assert apart.servers == together.servers


def test_completed_reaches_suboptions() -> None:
    done = completed(SERVER_OPTIONS, {"name": "web-01", "clone": {"template": "base"}})
    assert done["clone"] == {"template": "base", "full": True, "storage": None, "format": None}
    assert (done["state"], done["memory"]) == ("present", None)


def test_passwords_are_known_to_be_secret_wherever_they_are_given() -> None:
    for option in ("servers", "defaults"):
        assert FLEET_OPTIONS[option]["options"]["cloud_init"]["options"]["password"]["no_log"] is True


def test_documentation_has_every_option() -> None:
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]
    assert documented["servers"]["suboptions"].keys() == given_options(SERVER_OPTIONS).keys()
    assert "name" not in documented["defaults"]["suboptions"]
    assert not any("O(name" in text or "O(vmid" in text for text in documented["servers"]["suboptions"]["clone"])
