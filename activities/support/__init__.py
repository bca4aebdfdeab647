"""What several activities need: checks of the caller, heartbeats, asyncio tools."""
