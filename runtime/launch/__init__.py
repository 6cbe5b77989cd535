"""The processes between a create request and the user's program, and what they say to each other."""
