"""How alike two traces are, in figures, each beside what the reference's own chance allows."""
