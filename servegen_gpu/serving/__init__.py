"""What a trace asks of servers: a model of continuous batching, and how many instances meet an objective."""
