"""What it does: one module per domain, each with its `routes`; create_app() finds them."""
