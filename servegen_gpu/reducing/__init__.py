"""Figures of workloads without their traces: every slab is reduced where it is made, in whole numbers."""
