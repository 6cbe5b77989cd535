"""CRI's two services and wherry.v1: decode, call, encode. What a call does stands in shim.pod, shim.container, shim.image."""
