"""From CRI to OCI: what kubelet and the image ask for, as the `config.json` that an OCI runtime executes.

    detect.detect_host()                  effect, once: what this node can do          → HostFacts
    sources.gather_sources(config, …)     effect, a container: host paths it names     → HostSources
    layers.LayeredRootfs(paths)           effect: files of the image, not mounted      → RootfsReader
    users.resolve_user(reader, …)         through the reader                           → ResolvedUser
    validate.validate_pod / _container    pure
    build.build(SpecInputs)               pure                                         → BuiltSpec(config, notes)
    pod_files, sysctls, signals           pure: what the pod and StopContainer need

Everything that is not marked as an effect is a function of its arguments. The merging rules are containerd's, because
kubelet and images are tested against them; where Wherry is stricter the function says so.
"""
