"""A job that leaks its secrets in every way that a careless program can."""

# ruff: noqa: T201 - its output is what it is for

import base64
import os
import sys
import time
import urllib.parse
from pathlib import Path
from typing import TextIO


def write_slowly(parts: tuple[str, ...], stream: TextIO) -> None:
    """Write in pieces, and flush each before the next."""
    for part in parts:
        stream.write(part)
        stream.flush()
        time.sleep(0.05)
    stream.write("\n")


def leak_secret(secret: str) -> None:
    """Print a secret in every encoding."""
    half = len(secret) // 2
    print("plain", secret)
    print("url", urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret))
    for before in ("", "u:", "us:"):
        print("base64", base64.b64encode((before + secret).encode()).decode())
        print("base64 for urls", base64.urlsafe_b64encode((before + secret).encode()).decode())
    print("bytes", secret.encode(), "repr", repr(secret), "hex", secret.encode().hex())
    print("x" * 70_000 + secret + "y" * 70_000)
    write_slowly((secret[:half], secret[half:]), sys.stdout)
    write_slowly((secret[:3], secret[3:half], secret[half:]), sys.stderr)
    print("in a url https://user:" + secret + "@host/", file=sys.stderr, flush=True)


print("control", sys.argv[1], flush=True)
for name in sys.argv[2:]:
    leak_secret(os.environ[name])
for file in Path(os.environ["JUSTENOUGH_FILES"]).iterdir():
    # The broker's socket is there too.
    if file.is_file():
        print(file.read_text(), flush=True)
print("told all", flush=True)
sys.exit(3)
