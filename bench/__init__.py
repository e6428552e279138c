"""The benchmarks behind `make bench`: ratios measured in one run, on one machine.

Read `__main__.py` first: it lists the measures. A measure lets its contestants take turns for
several rounds and compares them round by round, because a machine is never equally fast twice;
absolute figures stand beside, to inform. Durability is on throughout.
"""
