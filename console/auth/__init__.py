"""Who is calling, and what they may do: tokens, page sessions, roles."""
