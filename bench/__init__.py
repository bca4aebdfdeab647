"""What JustEnough costs, measured beside a floor that a careful engineer would write by hand, on the same servers in the same run.

Never a test: figures depend on the machine. docs/explanation/benchmarks.md says what each means.
"""
