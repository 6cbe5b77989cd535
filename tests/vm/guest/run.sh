#!/bin/sh
# Run the command that the host left in /job, with its output on the virtual serial port, and switch the machine off.
mkdir -p /job
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 job /job
exec >/dev/vport0p1 2>&1 </dev/null
checkout=$(cat /job/checkout)
mkdir -p "$checkout"
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro checkout "$checkout"
mount --bind /opt/venv/bin "$checkout/.venv/bin" &&
    mount --bind /opt/venv/pyvenv.cfg "$checkout/.venv/pyvenv.cfg"
sed "s|^root=.*|root=$checkout|" "$checkout/runtime/wherry-oci.sh" >/opt/venv/bin/wherry-oci
for name in wherryd wherry wherry-cni; do
    case $name in wherryd) module=shim.bootstrap ;; wherry) module=shim.client.main ;; *) module=cni.main ;; esac
    printf '#!%s/.venv/bin/python3\nimport sys\nfrom %s import main\nsys.exit(main())\n' "$checkout" "$module" >/opt/venv/bin/$name
done
chmod 755 /opt/venv/bin/*
ip link set lo up
cd "$checkout" || exit
PATH=$checkout/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root WHERRY_VM=1 WHERRY_TEST_PATIENCE=6 PYTHONDONTWRITEBYTECODE=1 sh /job/command
echo $? >/job/status
sync
exec poweroff -ff >/dev/null 2>&1
