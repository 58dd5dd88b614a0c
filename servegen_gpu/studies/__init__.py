"""From a workload to a decision: many replicas of it, what they depend on, how many servers they need."""
