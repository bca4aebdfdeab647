"""Schedules, triggers, CloudEvents, webhooks, notifications, job identities. Pure."""
