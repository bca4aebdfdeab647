"""Who may stop whose jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.auth.authorization import Caller
from justenough.domain.approvals.tiers import Person, read_tiers
from justenough.domain.core.errors import Forbidden

TIERS = read_tiers((Path(__file__).resolve().parents[3] / "examples" / "shop" / "approvals.yaml").read_bytes())


@pytest.mark.parametrize(
    "groups, own, others",
    [
        ((), False, False),
        (("auditors",), False, False),
        (("ops",), True, False),
        (("ops", "auditors"), True, False),
        (("support-leads",), True, True),
        (("chiefs",), True, True),
        (("break-glass",), True, True),
    ],
)
def test_launchers_may_stop_their_own_jobs_and_approvers_and_on_call_any_job(groups: tuple[str, ...], *, own: bool, others: bool) -> None:
    caller = Caller(Person(id="me", name="me", groups=frozenset(groups)), TIERS, expires=0)
    assert (caller.can_stop_jobs_of("me"), caller.can_stop_jobs_of("somebody")) == (own, others)
    if not others:
        with pytest.raises(
            Forbidden, match="only the job's launcher may do this, or a member of: break-glass, chiefs, security, support-leads"
        ):
            caller.require_right_to_stop("somebody")
