"""The commands of `justenough`, one module per group."""
