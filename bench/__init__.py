"""Benchmarks: peers beside us in one run, told as ratios with the CPU that each operation cost."""
