"""CNI: the client, and the bundled plugins."""
