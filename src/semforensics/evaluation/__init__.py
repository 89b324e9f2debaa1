"""How a detector is judged."""
