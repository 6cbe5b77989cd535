"""What the judgements share. Only Python's library and pytest are needed, so that anybody can judge any plugins."""
