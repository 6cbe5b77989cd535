"""The registry client: hosts, credentials, HTTP, manifests and blobs (distribution-spec 1.1)."""
