"""GET /models: how many requests and tokens jobs use of each model, against their budgets."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages.operations import PAGES
from console.pages.page_user import ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.model_use import Period, model_use_summary

PERIOD_NAMES: Mapping[Period, str] = {"24h": "last 24 hours", "7d": "last 7 days"}
REFUSED_WORDS = {"over_budget": "over budget", "denied": "denied or waiting for approval", "not_allowed": "model not allowed"}

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/models")
def show(request: Request, console: TheConsole, visitor: ThePageUser, period: Period = "24h") -> Response:
    """Show the use of models by the jobs that the user may read."""
    visitor.caller.require(*Role)
    return render(
        request,
        "models.html",
        pages=PAGES,
        place="/operations",
        found=model_use_summary(console, visitor.caller, period),
        period_name=PERIOD_NAMES[period],
        # The first is the default, which the address need not name.
        periods=[("", "Last 24 hours"), ("7d", "Last 7 days")],
        refused_words=REFUSED_WORDS,
        reads_all=visitor.caller.can_read_all,
        refresh=30,
    )
