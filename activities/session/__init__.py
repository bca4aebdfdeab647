"""A job's session: runs its process, delivers credentials, stores output, ends and revokes. Makes no access decisions."""
