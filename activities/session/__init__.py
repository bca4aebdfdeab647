"""A job's session: its process in a sandbox, what is delivered to it, what it prints, how it is ended. Decides nothing about access."""
