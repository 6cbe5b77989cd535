"""Image archives: docker save's format and OCI layouts in a tar."""
