"""The broker: a running job's only door to access. door.py decides what goes through, http.py speaks, sockets.py listens."""

from activities.session.broker.door import Door
from activities.session.broker.sockets import Place, listening

__all__ = ["Door", "Place", "listening"]
