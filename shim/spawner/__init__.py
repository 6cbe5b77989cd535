"""The spawner: a warm, single-threaded process from which monitors and jobs are forked without starting an interpreter."""
