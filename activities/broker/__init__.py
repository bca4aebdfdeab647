"""The broker: a running job's only way to request access. server/ listens and speaks HTTP, llm/ is the model gateway, tools/ the tool gateway."""

from activities.broker.broker import Broker
from activities.broker.llm.gateway import ModelGateway
from activities.broker.server.listener import BrokerAddress, serve_broker
from activities.broker.tools import ToolGateway

__all__ = ["Broker", "BrokerAddress", "ModelGateway", "ToolGateway", "serve_broker"]
