"""Token ids -> logits. Shapes: B batch, T queries, S keys, C embedding, H heads, D head width."""
