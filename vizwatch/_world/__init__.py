"""Floor 2: the world. HTTP, credentials and retries: the only input and output of the library."""
