#!/bin/sh
# Addresses, routes and kernel settings of this edge host. Made by `edgectl render network`: change edge.toml.
set -eu

# kernel settings
sysctl -qw net.ipv4.ip_forward=0
sysctl -qw net.ipv6.conf.all.forwarding=0
sysctl -qw net.ipv4.conf.all.rp_filter=1
sysctl -qw net.ipv4.conf.all.arp_ignore=1
sysctl -qw net.ipv4.conf.all.arp_announce=2
sysctl -qw net.ipv4.conf.all.accept_redirects=0
sysctl -qw net.ipv4.conf.all.secure_redirects=0
sysctl -qw net.ipv4.conf.all.send_redirects=0
sysctl -qw net.ipv4.conf.all.accept_source_route=0
sysctl -qw net.ipv6.conf.all.accept_ra=0
sysctl -qw net.ipv6.conf.all.accept_redirects=0
sysctl -qw net.ipv6.conf.all.accept_source_route=0
sysctl -qw net.ipv4.conf.default.rp_filter=1
sysctl -qw net.ipv4.conf.default.arp_ignore=1
sysctl -qw net.ipv4.conf.default.arp_announce=2
sysctl -qw net.ipv4.conf.default.accept_redirects=0
sysctl -qw net.ipv4.conf.default.secure_redirects=0
sysctl -qw net.ipv4.conf.default.send_redirects=0
sysctl -qw net.ipv4.conf.default.accept_source_route=0
sysctl -qw net.ipv6.conf.default.accept_ra=0
sysctl -qw net.ipv6.conf.default.accept_redirects=0
sysctl -qw net.ipv6.conf.default.accept_source_route=0
sysctl -qw net.ipv4.conf.ext.rp_filter=1
sysctl -qw net.ipv4.conf.ext.arp_ignore=1
sysctl -qw net.ipv4.conf.ext.arp_announce=2
sysctl -qw net.ipv4.conf.ext.accept_redirects=0
sysctl -qw net.ipv4.conf.ext.secure_redirects=0
sysctl -qw net.ipv4.conf.ext.send_redirects=0
sysctl -qw net.ipv4.conf.ext.accept_source_route=0
sysctl -qw net.ipv6.conf.ext.accept_ra=0
sysctl -qw net.ipv6.conf.ext.accept_redirects=0
sysctl -qw net.ipv6.conf.ext.accept_source_route=0
sysctl -qw net.ipv4.conf.int.rp_filter=1
sysctl -qw net.ipv4.conf.int.arp_ignore=1
sysctl -qw net.ipv4.conf.int.arp_announce=2
sysctl -qw net.ipv4.conf.int.accept_redirects=0
sysctl -qw net.ipv4.conf.int.secure_redirects=0
sysctl -qw net.ipv4.conf.int.send_redirects=0
sysctl -qw net.ipv4.conf.int.accept_source_route=0
sysctl -qw net.ipv6.conf.int.accept_ra=0
sysctl -qw net.ipv6.conf.int.accept_redirects=0
sysctl -qw net.ipv6.conf.int.accept_source_route=0
sysctl -qw net.ipv4.tcp_syncookies=1
sysctl -qw net.ipv4.ip_local_port_range='20000 49999'

# external side
ip address replace 198.51.100.10/24 dev ext
ip address replace 198.51.100.11/24 dev ext
ip address replace 198.51.100.12/24 dev ext
ip address replace 2001:db8:100::10/64 dev ext nodad
ip address replace 2001:db8:100::11/64 dev ext nodad
ip address replace 2001:db8:100::12/64 dev ext nodad
ip link set ext up
ip -4 route flush table 1001 2>/dev/null || true
ip -6 route flush table 1001 2>/dev/null || true
ip -4 route replace 198.51.100.0/24 dev ext table 1001
ip -6 route replace 2001:db8:100::/64 dev ext table 1001
ip -4 route replace 0.0.0.0/0 via 198.51.100.1 dev ext
ip -4 route replace 0.0.0.0/0 via 198.51.100.1 dev ext table 1001
ip -6 route replace ::/0 via 2001:db8:100::1 dev ext
ip -6 route replace ::/0 via 2001:db8:100::1 dev ext table 1001
ip -4 route replace prohibit 10.10.0.0/16 table 1001
ip -4 rule delete priority 10000 2>/dev/null || true
ip -4 rule add from 198.51.100.10 lookup 1001 priority 10000
ip -4 rule delete priority 10001 2>/dev/null || true
ip -4 rule add from 198.51.100.11 lookup 1001 priority 10001
ip -4 rule delete priority 10002 2>/dev/null || true
ip -4 rule add from 198.51.100.12 lookup 1001 priority 10002
ip -6 rule delete priority 10003 2>/dev/null || true
ip -6 rule add from 2001:db8:100::10 lookup 1001 priority 10003
ip -6 rule delete priority 10004 2>/dev/null || true
ip -6 rule add from 2001:db8:100::11 lookup 1001 priority 10004
ip -6 rule delete priority 10005 2>/dev/null || true
ip -6 rule add from 2001:db8:100::12 lookup 1001 priority 10005

# internal side
ip address replace 10.10.0.10/24 dev int
ip link set int up
ip -4 route flush table 1002 2>/dev/null || true
ip -4 route replace 10.10.0.0/24 dev int table 1002
ip -4 route replace 10.10.0.0/16 via 10.10.0.1 dev int
ip -4 route replace 10.10.0.0/16 via 10.10.0.1 dev int table 1002
ip -4 route replace prohibit 0.0.0.0/0 table 1002
ip -4 rule delete priority 11000 2>/dev/null || true
ip -4 rule add from 10.10.0.10 lookup 1002 priority 11000
