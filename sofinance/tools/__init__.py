"""What `sofinance` can be told to do: one module per command, see cli.py."""
