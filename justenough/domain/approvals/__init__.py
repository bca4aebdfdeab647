"""Tiers, signed statements, and how approvals are verified and counted. Pure."""
