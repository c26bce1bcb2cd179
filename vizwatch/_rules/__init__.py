"""Floor 1: rules. Pure: bytes, times and random numbers come in as arguments; no I/O, no clock, no sleep."""
