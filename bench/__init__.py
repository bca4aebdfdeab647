"""What JustEnough costs compared with a floor: what a careful engineer would write by hand, on the same servers in the same run.

Never a test: figures depend on the machine. docs/explanation/benchmarks.md explains each figure.
"""
