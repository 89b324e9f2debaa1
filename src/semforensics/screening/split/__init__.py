"""Split pictures into panels."""
