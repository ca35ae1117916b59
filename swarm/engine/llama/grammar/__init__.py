"""Constraints on text: JSON Schemas and regular expressions, followed token by token."""
