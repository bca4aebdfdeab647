"""The jobs that the demo launches in addition to its acts, if it keeps its servers running.

Data only: orders and tickets are those of the shop, examples/shop/data/rows.sql.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """A job to launch: the launcher, the shop's job, the reason and the parameters."""

    person: str
    job: str
    reason: str
    params: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A person's answer to one request of a job: `justenough request DECISION`."""

    person: str
    decision: str
    resource: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Case:
    """A job that waits for people, and their decisions. `key`: what the job demonstrates."""

    key: str
    launch: Launch
    answers: tuple[Answer, ...]


def order_status(person: str, order: str, reason: str, *, tenant: str = "") -> Launch:
    return Launch(person, f"order-status{tenant}", reason, (f"order={order}",))


def refund(person: str, ticket: int, reason: str) -> Launch:
    """Return the launch of a refund; tickets from 5001 on belong to Globex."""
    return Launch(person, "refund-globex" if ticket > 5000 else "refund-triage", reason, (f"ticket={ticket}",))


def payout(order: int, amount: str, reason: str) -> Launch:
    return Launch("ops", "pay-out", reason, (f"order={order}", f"amount={amount}"))


def approve(person: str, resource: str, reason: str, *options: str) -> Answer:
    """Return an approval. `options`: further options of the command."""
    return Answer(person, "approve", resource, ("--reason", reason, *options))


def deny(person: str, resource: str, reason: str) -> Answer:
    return Answer(person, "deny", resource, ("--reason", reason))


REFUNDS, ADMIN, PAYOUTS, EXPORT = "refunds-db", "orders-db", "payouts-db", "export-api"
NO_ADMIN = deny("security", ADMIN, "a refund needs no admin access")

ROUTINE = (
    (
        order_status("lead", "100276", "the customer is on the phone"),
        order_status("oncall", "100715", "is it still in the warehouse?"),
        Launch("ops", "ticket-analysis", "figures for the weekly meeting"),
        Launch("lead", "ticket-answer", "the oldest ticket in my queue", ("ticket=4009",)),
        order_status("ops", "999999", "a customer gave this number"),
        Launch("ops", "export-customers", "the accountants want the addresses"),
    ),
    (
        Launch("ops", "daily-figures", "the figures of the day"),
        order_status("lead", "200142", "the customer asks when it comes", tenant="-globex"),
        Launch("ops", "refund-audit-globex", "monthly audit"),
        order_status("ops", "twelve", "read to me over the phone"),
        Launch("lead", "ticket-answer-globex", "ticket 5031 was escalated", ("ticket=5031",)),
    ),
    (
        order_status("oncall", "299999", "alarm about a missing order", tenant="-globex"),
        Launch("oncall", "ticket-answer", "called about this at night", ("ticket=1",)),
        Launch("ops", "ticket-answer-globex", "the next ticket", ("ticket=5042",)),
    ),
    (
        order_status("lead", "100291", "the customer wants to return it"),
        Launch("ops", "daily-figures", "the figures again, with the refunds of this morning"),
        Launch("lead", "export-customers", "a list for the Christmas cards"),
    ),
)
"""Jobs that need no approval, in four batches."""

LATE = (
    ("escalated", refund("lead", 5007, "the customer has called three times")),
    ("escalated too", refund("ops", 5078, "two docks, one of them dead")),
    ("late", payout(100034, "44.95", "the stove exploded; the customer is waiting")),
)
"""Jobs whose requests nobody decides in time."""
FOR_CHIEFS = refund("ops", 5015, "desks for 1647 EUR; the customer threatens to sue")
EXPIRED = refund("lead", 5022, "not urgent")

CASES = (
    Case(
        "refunded",
        refund("ops", 4059, "the daypack came with a torn strap"),
        (approve("lead", REFUNDS, "the photos show the damage"), NO_ADMIN),
    ),
    Case(
        "denied by a person",
        refund("ops", 4098, "three daypacks, none of them arrived"),
        (deny("lead", REFUNDS, "already refunded by bank transfer"),),
    ),
    Case("refunded at night", refund("oncall", 4042, "the queue is full"), (approve("lead", REFUNDS, "returned on time"), NO_ADMIN)),
    Case("failed after approval", refund("ops", 4003, "the customer wrote twice"), (approve("lead", REFUNDS, "looks fine"), NO_ADMIN)),
    Case("approved by security", refund("lead", 5060, "my own ticket"), (approve("security", REFUNDS, "lead cannot approve this alone"),)),
    Case(
        "approved for a delegator",
        refund("ops", 5056, "two keys do not work"),
        (approve("security", REFUNDS, "the keyboard was broken", "--on-behalf-of", "lead"),),
    ),
    Case(
        "paid out",
        payout(100291, "34.90", "ticket 4042: the card has expired"),
        (approve("security", PAYOUTS, "the account is the customer's"),),
    ),
    Case("payout denied", payout(100501, "449.50", "ticket 4072"), (deny("security", PAYOUTS, "the order cost 44.95, not 449.50"),)),
    Case(
        "exported",
        Launch("lead", "accountants-export", "the monthly closing"),
        (approve("security", EXPORT, "agreed with the accountants"),),
    ),
    Case("export denied", Launch("ops", "accountants-export", "test of the upload"), (deny("security", EXPORT, "not with real refunds"),)),
    Case(
        "shortened",
        Launch("ops", "refund-import", "the old system closes today"),
        (approve("lead", REFUNDS, "four minutes will do", "--ttl", "4m"),),
    ),
    Case(
        "withdrawn",
        Launch("oncall", "refund-import", "the import stopped at night"),
        (
            approve("lead", REFUNDS, "go on, carefully"),
            Answer("lead", "withdraw", REFUNDS, ("--reason", "the import writes every refund twice")),
        ),
    ),
    Case(
        "break-glass reviewed",
        refund("ops", 5090, "the customer stands in the shop"),
        (Answer("oncall", "break-glass", REFUNDS, ("--reason", "nobody answers, and the customer waits")),),
    ),
    Case(
        "break-glass open",
        refund("ops", 5105, "promised for today"),
        (Answer("oncall", "break-glass", REFUNDS, ("--reason", "lead is on a plane")),),
    ),
)
WAITING = (
    ("claimed", refund("ops", 4122, "a head torch, charged twice")),
    ("tier 1", refund("ops", 4131, "the stove leaks gas")),
    ("tier 2", payout(100869, "79.90", "ticket 4125: the customer has no card any more, only an account")),
    ("tier 2 too", Launch("oncall", "accountants-export", "the upload of last night failed")),
)
"""Jobs whose requests stay pending, for visitors of the console."""
