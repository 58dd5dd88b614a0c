"""What clients are better than: whole workloads as one renewal process."""
