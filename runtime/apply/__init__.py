"""Effects: what a plan says is done to the kernel."""
