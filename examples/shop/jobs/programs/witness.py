"""Lets the demo show that a credential works while its job runs and not a moment longer: hands it over, where the order says to whom.

No job of yours should do this. The order that asks for it is signed, and its approver sees the parameter `witness`.
"""

from __future__ import annotations

import json
import os
import socket


def hand_over(prefix: str = "PG") -> None:
    """Send the login in `<prefix>USER` and `<prefix>PASSWORD` to the witness (`host:port`), if there is one; wait until it was tried."""
    host, _, port = os.environ.get("WITNESS", "none").partition(":")
    if not port:
        return
    login = {"job": os.environ["JUSTENOUGH_JOB_ID"], "user": os.environ[f"{prefix}USER"], "password": os.environ[f"{prefix}PASSWORD"]}
    with socket.create_connection((host, int(port)), timeout=10) as witness, witness.makefile("rw") as lines:
        lines.write(json.dumps(login) + "\n")
        lines.flush()
        lines.readline()
