"""Drafts of cards: what a model's file tells, what is guessed, a card of both, and a trial of it."""
