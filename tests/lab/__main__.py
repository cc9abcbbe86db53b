# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""``python -m tests.lab``: serve a simulated cluster until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import math
import signal
import sys

from .server import Lab


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _nodes(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 99:
        raise argparse.ArgumentTypeError("must be from 1 to 99")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("must be from 0 to 65535")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError("must be a number of seconds, not negative")
    return value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Serve a simulated Proxmox VE cluster.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--pve-port", type=_port, default=8006, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument("--nodes", type=_nodes, default=2, help="nodes of the cluster (default: %(default)s)")
    parser.add_argument("--guests", type=_count, default=0, help="VMs that are there already (default: %(default)s)")
    parser.add_argument(
        "--time-scale", type=_seconds, default=1.0, help="real seconds for each second of PVE (default: %(default)s)"
    )
    parser.add_argument(
        "--latency",
        type=_seconds,
        default=0.0,
        help="seconds, scaled too, added to every answer (default: %(default)s)",
    )
    return parser.parse_args()


def main() -> int:
    """Print one line of JSON when ready, serve until a signal; 1 when the port cannot be had."""
    arguments = _arguments()
    # Blocked here and in the serving thread, so that sigwait() below gets them and nothing is cut off.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    lab = Lab(
        host=arguments.host,
        port=arguments.pve_port,
        nodes=arguments.nodes,
        guests=arguments.guests,
        time_scale=arguments.time_scale,
        latency=arguments.latency,
    )
    try:
        lab.start()
    except OSError as error:
        (error.strerror or str(error)).splitlines()[0]
        return 1
    try:
        signal.sigwait(signals)
    finally:
        lab.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
