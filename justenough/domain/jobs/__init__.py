"""Job specs, states, bundles, tool bounds and resource limits. Pure."""
