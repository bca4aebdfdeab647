"""Finds the example shop: in the working directory, in the checkout that these packages belong to, or in the installed package."""

from __future__ import annotations

from pathlib import Path

SHOP = Path("examples/shop")
PACKAGE = Path(__file__).resolve().parents[2]
INSTALLED = PACKAGE / SHOP
"""The folder into which a wheel installs it."""


def fallback_notice() -> str:
    """Return what to say if a command uses the example shop's folder because no configuration folder is set."""
    return f"No configuration folder is set here, so this uses the example shop's: {example_shop()}"


def example_shop() -> Path:
    return next((folder for folder in (SHOP, PACKAGE.parent / SHOP) if folder.is_dir()), INSTALLED)
