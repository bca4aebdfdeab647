"""The broker: a running job's only door to access. door.py decides what goes through, http.py speaks, sockets.py listens;
models.py is the gateway to the job's model.
"""

from activities.session.broker.door import Door
from activities.session.broker.models import Models
from activities.session.broker.sockets import Place, listening

__all__ = ["Door", "Models", "Place", "listening"]
