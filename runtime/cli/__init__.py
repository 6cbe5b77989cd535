"""The `wherry-oci` command: runc's command line over runtime.api."""
