"""The console's only Temporal client: starts, signals and cancels workflows, keeps schedules."""
