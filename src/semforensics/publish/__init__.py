"""Real + fake folders, manifest, description, card: what others pull."""
