"""The broker: a running job's only door to access. door.py decides what goes through, http.py speaks, sockets.py listens; models.py is the
gateway to the job's model, tools/ does for the job what it may not do by itself.
"""

from activities.broker.broker import Door
from activities.broker.llm.gateway import Models
from activities.broker.server.listener import Place, listening
from activities.broker.tools import Tools

__all__ = ["Door", "Models", "Place", "Tools", "listening"]
