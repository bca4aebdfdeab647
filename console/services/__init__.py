"""The console's use cases, which API and pages share. No HTTP."""
