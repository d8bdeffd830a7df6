"""What is measured: each file is a program, ``python -m benchmarks.NAME``."""
