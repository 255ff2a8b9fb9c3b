"""What a person looks at: tables, coloured tokens, progress bars, curves."""
