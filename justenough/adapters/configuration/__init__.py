"""Settings, and the configuration folder: catalog, policies, tiers, triggers, job templates."""
