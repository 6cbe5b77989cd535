"""CDI, the Container Device Interface: devices that vendors describe in files, and what a container needs to use one.

`document` makes values of a file, `edits` carries them out on a config.json, `cache` knows the files. All of it reads files or
is pure: it belongs into a thread, not on the event loop.
"""
