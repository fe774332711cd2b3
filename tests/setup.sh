#!/usr/bin/env bash
# Installs the Debian packages that the lab runs, and only those that are missing.
#
# No service is started: a policy file says no to every start while dpkg works, and goes away again
# if it was not there before. Units that came enabled are disabled, so that a restart of the machine
# starts none of them either.
set -euo pipefail

# command -> package. A command that is there already, from wherever, is not installed again.
needed=(
    kamailio:kamailio knotd:knot kdig:knot-dnsutils baresip:baresip-core
    turnutils_uclient:coturn nft:nftables ip:iproute2 ss:iproute2 sysctl:procps
    openssl:openssl socat:socat ping:iputils-ping strace:strace sngrep:sngrep tshark:tshark setpriv:util-linux unshare:util-linux
    nginx:nginx-light curl:curl ssh:openssh-client sshd:openssh-server
    Xtigervnc:tigervnc-standalone-server vncsnapshot:vncsnapshot
    node:nodejs npm:npm chromium:chromium certutil:libnss3-tools
    stdbuf:coreutils systemd-analyze:systemd haproxy:haproxy cc:gcc make:make
    valgrind:valgrind taskset:util-linux
)
# What has no command of its own: modules of Kamailio, the headers that the C compiler needs.
files=(
    "/usr/lib/*/kamailio/modules/tls.so:kamailio-tls-modules"
    "/usr/lib/*/kamailio/modules/outbound.so:kamailio-outbound-modules"
    "/usr/include/stdio.h:libc6-dev"
)
services=(kamailio knot coturn haproxy nginx ssh)
policy=/usr/sbin/policy-rc.d

# The phone in the browser: pinned packages of npm beside its script; the browser itself is Debian's.
browser=$(dirname "$0")/browser
install_browser_packages() {
    local kept=$browser/node_modules/.package-lock.json
    if [ ! -e "$kept" ] || [ "$browser/package-lock.json" -nt "$kept" ]; then
        PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix "$browser" --ignore-scripts --no-audit --no-fund --loglevel=error
        touch "$kept"
    fi
}

missing=()
export PATH="$PATH:/usr/sbin:/sbin"
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
for pair in "${files[@]}"; do
    compgen -G "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if [ ${#missing[@]} -eq 0 ]; then
    install_browser_packages
    echo "setup: everything is there"
    exit 0
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
echo "setup: missing: ${missing[*]}"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "setup: needs root to install: apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    }
    as_root=(sudo)
fi
command -v apt-get >/dev/null || {
    echo "setup: no apt-get here; install by hand what provides: ${missing[*]}" >&2
    exit 1
}

# A temporary directory of our own: another apt on this machine may be cleaning the common one.
archives=$(mktemp -d)
made_policy=
restore() {
    [ -z "$made_policy" ] || "${as_root[@]}" rm -f "$policy"
    "${as_root[@]}" rm -rf "$archives"
}
trap restore EXIT
mkdir -p "$archives/partial"
chmod 755 "$archives"

if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    made_policy=yes
fi

apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o "Dir::Cache::archives=$archives" -o DPkg::Lock::Timeout=300)
install=("${apt[@]}" install -y --no-install-recommends "${missing[@]}")
# The lists of packages may be old or absent: only then are they fetched.
"${install[@]}" || { "${apt[@]}" update && "${install[@]}"; }

for service in "${services[@]}"; do
    if command -v systemctl >/dev/null && systemctl list-unit-files "$service.service" >/dev/null 2>&1; then
        "${as_root[@]}" systemctl disable "$service.service" >/dev/null 2>&1 || true
    fi
done
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || { echo "setup: ${pair%%:*} is still missing" >&2; exit 1; }
done
install_browser_packages
echo "setup: done"
