"""The type of the function with which tests of the shop create users and log them in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

Login = Callable[..., "psycopg.Connection[Any]"]
