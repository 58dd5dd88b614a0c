"""From traces to models."""
