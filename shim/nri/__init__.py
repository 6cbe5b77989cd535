"""NRI: plugins that hear of pods and containers, and change containers.

`mux`, `ttrpc` and `session` are the protocol without sockets and clocks; `link` puts it on a socket; `plugin` is one plugin,
`plugins` all of them, `service` what handlers call. Nothing but `service` is imported before there is a plugin.
"""
