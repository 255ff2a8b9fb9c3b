"""From raw text to token ids and back: cleaning, splitting, encoding, and making a vocabulary."""
