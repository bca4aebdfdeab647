"""People whose groups no console or worker has cached yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.attacks.intruder import change_group
from tests.support.people import Human, log_in
from tests.support.shop import Shop
from worker.stack.stack_file import Stack


@contextmanager
def log_in_newcomer(stack: Stack, shop: Shop, name: str, *groups: str) -> Iterator[Human]:
    """Log in a new person in these groups. Console and worker cache the groups of people whom they know for some seconds."""
    with shop.admin() as vault:
        user = {"password": name, "token_policies": ["je-person"], "token_no_default_policy": True}
        vault.post(f"auth/people/users/{name}", json=user).raise_for_status()
    with log_in(stack, name, name) as human, ExitStack() as member:
        for group in groups:
            member.enter_context(change_group(shop, group, add=[human.id]))
        yield human
