"""The OCI runtime specification's config.json: frozen values, the parser, the validator and the default document."""
