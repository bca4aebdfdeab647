"""The broker: a running job's only door to access. door.py decides what goes through, http.py speaks, sockets.py listens; models.py is the
gateway to the job's model, tools/ does for the job what it may not do by itself.
"""

from activities.broker.broker import Broker
from activities.broker.llm.gateway import ModelGateway
from activities.broker.server.listener import BrokerAddress, serve_broker
from activities.broker.tools import ToolGateway

__all__ = ["Broker", "BrokerAddress", "ModelGateway", "ToolGateway", "serve_broker"]
