"""Named containers over their whole life."""

from minicontainer.engine.engine import Engine, Result
from minicontainer.engine.errors import EngineError
from minicontainer.engine.store import Config

__all__ = ["Config", "Engine", "EngineError", "Result"]
