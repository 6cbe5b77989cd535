"""Images: references, registries, unpacking, the image store."""
