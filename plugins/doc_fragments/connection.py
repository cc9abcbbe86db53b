# Copyright (c) 2026, the PVE Fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Which cluster a module works on: goes with connection_argument_spec()."""

    DOCUMENTATION = r"""
requirements:
  - proxmoxer >= 2.3
  - requests >= 2.32
  - PyYAML >= 6
options:
  cluster:
    description:
      - Name of a cluster in the registry, see O(registry).
      - Excludes the single options O(api_host), O(api_port), O(api_user), O(api_password), O(api_token_id),
        O(api_token_secret), O(ca_path), O(tls_fingerprint), and O(validate_certs).
      - Without it and without single options, E(PVEFLEET_CLUSTER) names the cluster. If that is not set either, the
        variables of the single options are used when they name a host, and else the registry's default cluster.
    type: str
  registry:
    description:
      - YAML file of named clusters, which M(pvefleet.infra.proxmox_cluster) manages.
      - Default is the value of E(PVEFLEET_REGISTRY), and without it C(~/.config/pvefleet/clusters.yml).
      - A registry that holds secrets in plain text is refused when its mode lets others than its owner at it.
    type: path
  api_host:
    description:
      - Host name or address of a node, or the URL of its API as in V(https://pve1.example.com:8006). IPv6 addresses
        work with and without brackets.
      - Taken from E(PVEFLEET_API_HOST) or E(PROXMOX_HOST) when it is not given.
    type: str
  api_port:
    description:
      - Port of the API, unless O(api_host) has one. V(8006) when it is given nowhere.
      - Taken from E(PVEFLEET_API_PORT) or E(PROXMOX_PORT) when it is not given.
    type: int
  api_user:
    description:
      - The user with its realm, as in V(root@pam).
      - Not needed when O(api_token_id) has it.
      - Taken from E(PVEFLEET_API_USER) or E(PROXMOX_USER) when it is not given.
    type: str
  api_password:
    description:
      - Password of O(api_user). Users with a second factor need an API token instead.
      - Taken from E(PVEFLEET_API_PASSWORD) or E(PROXMOX_PASSWORD) when neither it nor a token is given.
    type: str
  api_token_id:
    description:
      - Name of an API token of O(api_user), or the whole id as in V(automation@pve!fleet).
      - Taken from E(PVEFLEET_API_TOKEN_ID) or E(PROXMOX_TOKEN_ID) when neither it nor a password is given.
      - When the environment has both a token and a password, the token is used.
    type: str
  api_token_secret:
    description:
      - Secret of the API token.
      - Taken from E(PVEFLEET_API_TOKEN_SECRET) or E(PROXMOX_TOKEN_SECRET) when neither it nor a password is given.
    type: str
  ca_path:
    description:
      - File or folder with the CA certificates to trust, in place of the system's. A PVE cluster's own CA is
        C(/etc/pve/pve-root-ca.pem) on its nodes.
      - Taken from E(PVEFLEET_CA_PATH) or E(PROXMOX_CA_PATH) when no way of trust is given.
    type: path
  tls_fingerprint:
    description:
      - SHA-256 fingerprint of the server's own certificate, as PVE shows it. Trusted in place of CAs and host name.
      - Each node has another one; use O(ca_path) where several nodes are asked in turn.
      - Taken from E(PVEFLEET_TLS_FINGERPRINT) or E(PROXMOX_TLS_FINGERPRINT) when no way of trust is given.
    type: str
  validate_certs:
    description:
      - V(false) trusts whoever answers, and sends them the credentials.
      - Certificates are validated unless this is V(false) here, or by E(PVEFLEET_VALIDATE_CERTS) or
        E(PROXMOX_VALIDATE_CERTS) when no way of trust is given.
    type: bool
  connect_timeout:
    description: Seconds for a connection to one address, TLS included.
    type: float
    default: 5.0
  read_timeout:
    description:
      - Seconds without a byte of the answer after which a call counts as lost.
      - Keep it above the 30 seconds that PVE's proxy itself waits for a node.
    type: float
    default: 40.0
notes:
  - Passing failures are repeated for up to 30 seconds. A change whose answer was lost is repeated only after looking
    whether it happened.
  - C(HTTPS_PROXY) and C(NO_PROXY) are followed, but never for addresses of this machine or of private networks.
  - Without O(ca_path) and O(tls_fingerprint) the system's CAs are trusted, or those that C(SSL_CERT_FILE),
    C(REQUESTS_CA_BUNDLE) or C(CURL_CA_BUNDLE) names.
"""
