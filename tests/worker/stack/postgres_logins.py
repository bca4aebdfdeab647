"""How tests of the shop make users and log them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

Login = Callable[..., "psycopg.Connection[Any]"]
