#!/bin/sh
# newer_criu.sh FOLDER: where the installed criu does not work on this kernel, unpack Debian unstable's into FOLDER, libraries and
# all, without installing anything. FOLDER/criu runs it. criu has to know the kernel it works on, and stable's may be too old.
set -eu
folder=$1
if criu check >/dev/null 2>&1 || "$folder/criu" check >/dev/null 2>&1; then exit 0; fi
mkdir -p "$folder/lists/partial" "$folder/archives/partial" "$folder/root"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] http://deb.debian.org/debian sid main" >"$folder/sources.list"
set -- -o "Dir::Etc::sourcelist=$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$folder/lists" \
    -o "Dir::Cache::archives=$folder/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
    -o Dir::State::status=/dev/null -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false
apt-get -qq "$@" update
apt-get -qq "$@" -y --no-install-recommends --download-only install criu >/dev/null
for package in "$folder"/archives/*.deb; do dpkg -x "$package" "$folder/root"; done
rm -rf "$folder/lists" "$folder/archives"
libraries=$folder/root/usr/lib/$(dpkg --print-architecture | sed 's/amd64/x86_64-linux-gnu/; s/arm64/aarch64-linux-gnu/')
printf '#!/bin/sh\nexec %s/ld-linux-*.so.* --library-path %s %s/root/usr/sbin/criu "$@"\n' \
    "$libraries" "$libraries" "$folder" >"$folder/criu"
chmod +x "$folder/criu"
"$folder/criu" check >/dev/null
