"""Live tests run real models and real Ray clusters."""

from __future__ import annotations

import os
import secrets

from real_models import gemma_path, smollm2_path, tiny_path

__all__ = ["gemma_path", "smollm2_path", "tiny_path"]

# Ray's nodes and drivers agree on a token of these tests' own; set before anything imports ray.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
