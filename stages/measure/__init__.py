"""Measuring: clocks, statistics, memory, the machine, and one record for every figure."""
