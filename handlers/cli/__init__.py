"""What `flask --app app` can do besides serving: migrate, seed, move tables, make tokens, explain, and more."""
