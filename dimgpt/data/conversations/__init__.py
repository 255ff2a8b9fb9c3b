"""Conversations: roles, prompts, loss weights, and the forms in which records hold them."""
