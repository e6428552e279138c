"""What breaks while it sells: faults on real processes, each ending in one checker.

`make chaos` runs all of it; docs/faults.md says what is done and what was measured.
"""
