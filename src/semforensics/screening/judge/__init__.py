"""Judge panels."""
