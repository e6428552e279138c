"""The machine: it knows no business word."""
