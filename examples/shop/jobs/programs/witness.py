"""Lets the demo show that a credential works only while its job runs: sends it to the address in the order, if there is one.

Your own jobs should not do this. The order is signed, and approvers see its parameter `witness`.
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
