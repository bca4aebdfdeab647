"""The console's only Temporal client, and the schedules in Temporal."""
