"""The broker: a running job's only door to access. door.py decides what goes through, http.py speaks, sockets.py listens, tools/ does for the job
what it may not do by itself.
"""

from activities.session.broker.door import Door
from activities.session.broker.sockets import Place, listening
from activities.session.broker.tools import Tools

__all__ = ["Door", "Place", "Tools", "listening"]
