# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: AGPL-3.0-or-later

"""``python -m tests.lab``: serve a simulated cluster until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from .server import Lab
from .site import LabSite


def _between(kind: type[int] | type[float], low: int, high: float) -> Callable[[str], float]:
    """A parser of numbers in this range."""

    def parse(text: str) -> float:
        limits = f"must be a number from {low} to {high}" if math.isfinite(high) else f"must be a number from {low} on"
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(limits) from None
        if not (math.isfinite(value) and low <= value <= high):
            raise argparse.ArgumentTypeError(limits)
        return value

    return parse


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description="Serve a simulated Proxmox VE cluster.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--pve-port", type=_between(int, 0, 65535), default=8006, help="port, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--nodes", type=_between(int, 1, 99), default=2, help="nodes of the cluster (default: %(default)s)"
    )
    parser.add_argument(
        "--standalone",
        action="store_true",
        help="nodes that are no cluster yet, on loopback addresses and a port of their own; no --guests",
    )
    parser.add_argument(
        "--guests", type=_between(int, 0, 10**5), default=0, help="VMs that are there already (default: %(default)s)"
    )
    parser.add_argument(
        "--time-scale",
        type=_between(float, 0, math.inf),
        default=1.0,
        help="real seconds for each second of PVE (default: %(default)s)",
    )
    parser.add_argument(
        "--latency",
        type=_between(float, 0, math.inf),
        default=0.0,
        help="seconds added to every answer (default: %(default)s)",
    )
    return parser.parse_args()


def _lab(arguments: argparse.Namespace) -> Lab | LabSite:
    if arguments.standalone:
        return LabSite(arguments.nodes, time_scale=arguments.time_scale, latency=arguments.latency)
    return Lab(
        host=arguments.host,
        port=arguments.pve_port,
        nodes=arguments.nodes,
        guests=arguments.guests,
        time_scale=arguments.time_scale,
        latency=arguments.latency,
    )


def _description(lab: Lab | LabSite) -> dict[str, Any]:
    """How to reach it: `pve` is the cluster, or the first of standalone nodes, and `others` are the rest of them."""
    if isinstance(lab, Lab):
        return {"pve": lab.description()}
    names = ("name", "host", "port", "api_endpoint", "ca_file", "fingerprint", "username", "password")
    first, *others = [{name: getattr(node, name) for name in names} for node in lab.nodes.values()]
    return {"pve": first, "others": others}


def _cause(error: OSError) -> str:
    """asyncio words its own message around the number of the error."""
    known = error.errno is not None and error.errno > 0
    return os.strerror(error.errno) if known else (error.strerror or str(error))


def main() -> int:
    """Print one line of JSON when ready, serve until a signal; 1 when the port cannot be had."""
    arguments = _arguments()
    # Blocked here and in the serving thread, so that sigwait() below gets them and nothing is cut off.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    lab = _lab(arguments)
    try:
        lab.start()
    except OSError as error:
        where = f"{arguments.host} port {arguments.pve_port}"
        sys.stderr.write(f"Unable to serve the lab on {where}: {_cause(error)}\n")
        return 1
    try:
        sys.stdout.write(json.dumps(_description(lab)) + "\n")
        sys.stdout.flush()
        signal.sigwait(signals)
    finally:
        lab.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
