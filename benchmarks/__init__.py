"""How fast vizwatch is, beside what one would write by hand: `python -m benchmarks`."""
