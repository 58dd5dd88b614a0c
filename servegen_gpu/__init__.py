"""Fast, faithful LLM serving workloads."""
