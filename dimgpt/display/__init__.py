"""Output for users: tables, coloured tokens, progress bars, curves."""
