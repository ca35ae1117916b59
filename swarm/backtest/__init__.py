"""Policies measured on recorded outcomes: what they would have cost and how often they would have been right."""
