"""cluster: the whole way, cut into steps, handed to an engine that exists."""
