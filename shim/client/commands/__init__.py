"""The subcommands of `wherry`, one file a topic."""
