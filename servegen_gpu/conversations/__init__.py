"""Conversations: from first turns, which a backend samples, to all turns, in order, in bounded memory."""
