"""Faults are looked for with real models, for as long as one likes: `make faults`."""

from __future__ import annotations

from real_models import smollm2_path, tiny_path

__all__ = ["smollm2_path", "tiny_path"]
