"""Looking inside: what a model expects, where it looks, and what it has read before."""
