"""The sampling law, function by function, elementwise over any array namespace."""
