"""Pictures of a trace with matplotlib, after the figures of the paper."""
