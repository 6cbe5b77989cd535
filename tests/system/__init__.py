"""System tests: root, a real kernel and the real peers."""
