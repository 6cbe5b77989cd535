"""What the suites share. Only Python's library and pytest are needed, so that anybody can judge anything."""
