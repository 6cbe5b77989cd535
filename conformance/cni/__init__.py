"""Judge any folder of CNI plugins by the specification: `pytest conformance/cni --plugin-dir /opt/cni/bin`."""
