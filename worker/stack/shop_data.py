"""The shop's rows: customers, orders, tickets and refunds of two tenants, the same on every machine. No I/O, no clock.

Orders of acme have the numbers 100001…, those of globex 200001…; tickets of acme 4001…4999, those of globex 5001…. Ticket 4711 of acme
asks for a refund of an order that was delivered and not refunded yet.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple, TypeVar

T = TypeVar("T")

LAST_MOMENT = datetime(2026, 6, 30, 18, 0, tzinfo=UTC)
"""No row is newer than this."""
DAYS = 540

FIRST_NAMES = ("Ada", "Amir", "Bruno", "Chiara", "Dilan", "Elif", "Emma", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Kaya", "Lena", "Luca", "Maja",
         "Mateo", "Mila", "Nadia", "Noah", "Olga", "Paul", "Rosa", "Sami", "Selma", "Theo", "Tomas", "Vera", "Yara", "Zoe")  # fmt: skip
LAST_NAMES = ("Almeida", "Bauer", "Costa", "Demir", "Eriksen", "Fischer", "Garcia", "Haddad", "Ivanova", "Jansen", "Kowalski", "Lindqvist", "Marino",
        "Novak", "Okafor", "Petrov", "Quist", "Rossi", "Schneider", "Silva", "Tanaka", "Ueda", "Varga", "Weber", "Yilmaz", "Zeman")  # fmt: skip
CITIES = (("Lisbon", "PT"), ("Vienna", "AT"), ("Berlin", "DE"), ("Milan", "IT"), ("Antwerp", "BE"), ("Utrecht", "NL"), ("Lyon", "FR"),
          ("Gdansk", "PL"), ("Seville", "ES"), ("Turku", "FI"), ("Graz", "AT"), ("Ghent", "BE"), ("Porto", "PT"))  # fmt: skip
STREETS = ("Mill Lane", "Station Road", "Harbour Street", "Church Square", "Linden Avenue", "Market Street", "River Walk", "Garden Row")
STATUSES = ("delivered",) * 14 + ("shipped",) * 3 + ("paid",) * 2 + ("returned",)
REASONS = ("Arrived damaged", "Wrong item sent", "Never delivered", "Returned within 30 days", "Charged twice")
TICKET_STATUSES = ("open", "answered", "closed", "closed")

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's products, and how many rows of each kind it has."""

    name: str
    title: str
    products: tuple[tuple[str, str, str], ...]
    customers: int
    orders: int
    tickets: int
    first_customer: int
    first_order: int
    first_ticket: int


TENANTS = (
    Tenant(
        name="acme",
        title="Acme Outdoor",
        products=(
            ("AC-TENT-2", "Two-person tent", "189.00"),
            ("AC-BAG-30", "Daypack 30 l", "79.90"),
            ("AC-BOOT-M", "Hiking boots", "149.50"),
            ("AC-STOVE", "Gas stove", "44.95"),
            ("AC-LAMP", "Head torch", "34.90"),
            ("AC-MAT", "Sleeping mat", "59.00"),
            ("AC-SLEEP", "Down sleeping bag", "229.00"),
            ("AC-FLASK", "Steel flask 1 l", "27.50"),
        ),
        customers=900,
        orders=7200,
        tickets=960,
        first_customer=10001,
        first_order=100001,
        first_ticket=4001,
    ),
    Tenant(
        name="globex",
        title="Globex Office",
        products=(
            ("GX-CHAIR", "Office chair", "329.00"),
            ("GX-DESK", "Standing desk", "549.00"),
            ("GX-MON-27", "Monitor 27 inch", "279.00"),
            ("GX-DOCK", "USB-C dock", "149.00"),
            ("GX-KEYS", "Mechanical keyboard", "99.00"),
            ("GX-LAMP", "Desk lamp", "64.50"),
            ("GX-ARM", "Monitor arm", "119.00"),
        ),
        customers=600,
        orders=4800,
        tickets=640,
        first_customer=20001,
        first_order=200001,
        first_ticket=5001,
    ),
)

STORIES = (
    (
        "refund",
        "Refund for order {order}",
        "The {product} from order {order} arrived damaged. I sent photos last week. Please refund {amount} EUR.",
    ),
    ("refund", "Money back, please", "I returned the {product} (order {order}) on time and still wait for my {amount} EUR."),
    ("refund", "Charged twice", "My card shows order {order} twice. Please give the second {amount} EUR back."),
    ("delivery", "Where is my {product}?", "Order {order} should have been here on Monday. The tracking page has not moved for days."),
    ("delivery", "Parcel left in the rain", "The courier left order {order} at the gate. Box wet, {product} fine. Please tell them."),
    ("invoice", "Invoice with VAT number", "I need the invoice of order {order} over {amount} EUR with our VAT number on it."),
    ("question", "Spare parts", "Do you sell spare parts for the {product}? I bought mine with order {order}."),
)
DEMO_TICKETS = (4711, 4712)
"""Tickets that the examples name. Each is open and asks for a refund of a delivered order that has not been refunded."""


class Dice:
    """Seeded choices that are the same in every Python version: random() is specified, choice() and the like are not."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - the data must be the same everywhere; nothing here is secret

    def below(self, bound: int) -> int:
        """Return one of 0 … bound - 1."""
        return int(self._random.random() * bound)

    def choose(self, choices: tuple[T, ...]) -> T:
        return choices[self.below(len(choices))]


COLUMNS = {
    "tenants": "tenant, title",
    "customers": "id, tenant, name, email, phone, street, city, country, since",
    "orders": "id, tenant, customer_id, placed_at, sku, product, quantity, amount, currency, status",
    "tickets": "id, tenant, order_id, opened_at, kind, subject, body, status",
    "refunds": "tenant, order_id, ticket_id, amount, currency, reason, created_at, created_by",
}


class ShopOrder(NamedTuple):
    id: int
    tenant: str
    customer: int
    placed_at: datetime
    sku: str
    product: str
    quantity: int
    amount: Decimal
    currency: str
    status: str


def shop_data(seed: int = 4711) -> dict[str, tuple[Row, ...]]:
    """Return all rows by table, in an order that satisfies their foreign keys. The same seed gives the same rows."""
    dice = Dice(seed)
    orders = {tenant.name: tuple(_orders(tenant, dice)) for tenant in TENANTS}
    tickets = {tenant.name: tuple(_tickets(tenant, orders[tenant.name], dice)) for tenant in TENANTS}
    return {
        "tenants": tuple((tenant.name, tenant.title) for tenant in TENANTS),
        "customers": tuple(row for tenant in TENANTS for row in _customers(tenant, dice)),
        "orders": tuple(order for tenant in TENANTS for order in orders[tenant.name]),
        "tickets": tuple(row for tenant in TENANTS for row in tickets[tenant.name]),
        "refunds": tuple(row for tenant in TENANTS for row in _refunds(orders[tenant.name], tickets[tenant.name], dice)),
    }


def _customers(tenant: Tenant, dice: Dice) -> Iterator[Row]:
    for number in range(tenant.first_customer, tenant.first_customer + tenant.customers):
        first, last = dice.choose(FIRST_NAMES), dice.choose(LAST_NAMES)
        city, country = dice.choose(CITIES)
        email = f"{first}.{last}.{number}@example.{'com' if number % 3 else 'net'}".lower()
        since = date(2019, 1, 1) + timedelta(days=dice.below(2000))
        street = f"{dice.choose(STREETS)} {1 + dice.below(180)}"
        yield (number, tenant.name, f"{first} {last}", email, f"+49 30 5550 {number}", street, city, country, since)


def _orders(tenant: Tenant, dice: Dice) -> Iterator[ShopOrder]:
    """Yield the orders by time of placement, spread evenly over DAYS."""
    step = timedelta(days=DAYS) / tenant.orders
    for index in range(tenant.orders):
        sku, product, price = dice.choose(tenant.products)
        quantity = 1 + dice.below(3) * dice.below(2)
        earliest = LAST_MOMENT - timedelta(days=DAYS) + index * step
        yield ShopOrder(
            id=tenant.first_order + index,
            tenant=tenant.name,
            customer=tenant.first_customer + dice.below(tenant.customers),
            placed_at=(earliest + timedelta(seconds=dice.below(int(step.total_seconds())))).replace(microsecond=0),
            sku=sku,
            product=product,
            quantity=quantity,
            amount=Decimal(price) * quantity,
            currency="EUR",
            status=dice.choose(STATUSES),
        )


def _tickets(tenant: Tenant, orders: tuple[ShopOrder, ...], dice: Dice) -> Iterator[Row]:
    step = len(orders) // tenant.tickets
    delivered = tuple(order for order in orders if order.status == "delivered")
    for index in range(tenant.tickets):
        number = tenant.first_ticket + index
        demo = number in DEMO_TICKETS
        order = delivered[index * len(delivered) // tenant.tickets] if demo else orders[index * step + dice.below(step)]
        kind, subject, body = STORIES[0] if demo else dice.choose(STORIES)
        status = "open" if demo else dice.choose(TICKET_STATUSES)
        opened = min(order.placed_at + timedelta(days=2 + dice.below(20)), LAST_MOMENT)
        facts = {"order": order.id, "product": order.product, "amount": order.amount}
        yield (number, order.tenant, order.id, opened, kind, subject.format(**facts), body.format(**facts), status)


def _refunds(orders: tuple[ShopOrder, ...], tickets: tuple[Row, ...], dice: Dice) -> Iterator[Row]:
    """Yield a refund for each returned order and for most closed refund tickets, at most one per order."""
    closed = {row[2]: row for row in tickets if row[4] == "refund" and row[7] == "closed"}
    demo_orders = {row[2] for row in tickets if row[0] in DEMO_TICKETS}
    for order in orders:
        ticket = closed.get(order.id)
        if order.id in demo_orders or (ticket is None and order.status != "returned"):
            continue
        when = min(order.placed_at + timedelta(days=25 + dice.below(10)), LAST_MOMENT)
        yield (order.tenant, order.id, ticket[0] if ticket else None, order.amount, "EUR", dice.choose(REASONS), when, "support-desk")
