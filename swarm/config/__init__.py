"""From a YAML swarm file to a checked spec with positions.

`load` gives a file without problems, `read` one with its problems listed, so that a plan can add its own.
"""

from swarm.config.file import SwarmFile, load, read
from swarm.config.json_schema import json_schema
from swarm.config.schema import SwarmSpec
from swarm.config.values import EnvRef

__all__ = ["EnvRef", "SwarmFile", "SwarmSpec", "json_schema", "load", "read"]
