"""The broker: a running job's only door to access. door.py decides what goes through, http.py speaks, sockets.py listens; models.py is the
gateway to the job's model, tools/ does for the job what it may not do by itself.
"""

from activities.session.broker.door import Door
from activities.session.broker.models import Models
from activities.session.broker.sockets import Place, listening
from activities.session.broker.tools import Tools

__all__ = ["Door", "Models", "Place", "Tools", "listening"]
