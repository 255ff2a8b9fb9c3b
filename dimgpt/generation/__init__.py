"""A model, a prompt: the next tokens, then text, then a conversation."""
