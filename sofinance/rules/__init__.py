"""How numbers work: pure functions, no I/O, no clock."""
