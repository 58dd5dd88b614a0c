"""Conversations: from the sessions that a backend samples to all of their turns, in order, in bounded memory."""
