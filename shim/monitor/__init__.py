"""The pod monitor: parent of a pod's processes, owner of their namespaces, stdio, logs and exit records; outlives wherryd."""
