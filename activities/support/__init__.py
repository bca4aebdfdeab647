"""Shared by several activities: checks of the caller, heartbeats, asyncio tools."""
