"""Unpacking: everything here runs inside a forked job and imports the standard library, isal and zstandard only.

job       the entry point: unpack, fix, retar, index, spool
sandbox   new mount and network namespaces, pivot into one directory
streams   compressed bytes in, hashed; plain bytes out, bounded
tar       the tar parser: headers, pax, GNU; no effects
writer    entries to files
recipe    what is needed to make the very same tar again
fix       directories and hard links that need the lower layers
remove    delete a tree of any depth
"""
