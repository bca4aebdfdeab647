"""What one session's job holds: this session's own record, which is what policy is asked with. Changed under its issuer's lock alone."""

from __future__ import annotations

from activities.session.renewing import Basis
from justenough.access import Credential, Held, Sensitivity
from justenough.spec import Access


class Holdings:
    """The credentials of one job that are not known to be dead, what each was issued on, and what was touched."""

    def __init__(self) -> None:
        self.held = Held()
        """What the job holds and has touched."""
        self._alive: dict[str, Credential] = {}
        self._bases: dict[str, Basis] = {}
        self._spaces: set[tuple[str, str]] = set()

    @property
    def spaces(self) -> frozenset[tuple[str, str]]:
        """Resource and action of all that was to give the job a space, also where nothing came of it: a space outlives what gave it."""
        return frozenset(self._spaces)

    @property
    def alive(self) -> tuple[Credential, ...]:
        """Every credential that Vault gave and that is not known to be dead."""
        return tuple(self._alive.values())

    def basis(self, credential: Credential) -> Basis:
        """Return what a credential that is alive was issued on."""
        return self._bases[credential.id]

    def opening_space(self, access: Access) -> None:
        """Remember that something is about to give the job a space, whatever comes of it."""
        self._spaces.add((access.resource, access.action.value))

    def take(self, credential: Credential, basis: Basis) -> None:
        """Remember a credential that Vault gave, whatever comes of it."""
        self._alive[credential.id] = credential
        self._bases[credential.id] = basis

    def touch(self, credential: Credential, sensitivity: Sensitivity) -> None:
        """Count a credential as issued."""
        self.held = self.held.issued(credential.resource, credential.action, sensitivity)

    def forget(self, credential: Credential) -> None:
        """Forget one that is dead; what it touched stays touched."""
        self._alive.pop(credential.id, None)
        self._bases.pop(credential.id, None)
        if not any((one.resource, one.action) == (credential.resource, credential.action) for one in self._alive.values()):
            self.held = self.held.returned(credential.resource, credential.action)
