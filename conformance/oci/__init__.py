"""Judge any OCI runtime binary by the runtime specification: `pytest conformance/oci --runtime /usr/sbin/runc`."""
