//! Configurations for the tests of this crate.

use std::net::IpAddr;

use edge_common::config::*;
use edge_common::side::SidePair;

pub(crate) fn single() -> Config {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let ips = |list: &[&str]| list.iter().map(|text| ip(text)).collect::<Vec<_>>();
    let nets = |list: &[&str]| {
        list.iter()
            .map(|text| text.parse().unwrap())
            .collect::<Vec<ipnet::IpNet>>()
    };
    let name = |text: &str| text.parse().unwrap();
    let pair = |which: &str| CertificateFiles {
        chain: format!("certs/{which}.pem").into(),
        key: format!("certs/{which}.key").into(),
    };
    Config {
        organization: Organization {
            sip_domains: vec![SipDomain {
                domain: name("contoso.test"),
                remote_users_here: true,
            }],
            topology: Topology::Single,
            federation_here: true,
        },
        members: vec![Member {
            name: "edge1".into(),
            id: 0,
            external: MemberExternal {
                addresses: nets(&[
                    "198.51.100.10/24",
                    "198.51.100.11/24",
                    "198.51.100.12/24",
                    "2001:db8:100::10/64",
                ]),
                access: ips(&["198.51.100.10"]),
                webconf: ips(&["198.51.100.11"]),
                av: ips(&["198.51.100.12", "2001:db8:100::10"]),
            },
            internal: MemberInternal {
                addresses: nets(&["10.10.0.10/24"]),
                fqdn: name("edge1.contoso.internal"),
            },
            webconf_internal_fqdn: name("edge1.contoso.internal"),
        }],
        node: 0,
        external: External {
            interface: "ext".into(),
            gateway: ips(&["198.51.100.1", "2001:db8:100::1"]),
            networks: nets(&["0.0.0.0/0", "::/0"]),
        },
        internal: Internal {
            interface: "int".into(),
            gateway: ips(&["10.10.0.1"]),
            networks: nets(&["10.10.0.0/16"]),
            certificates: vec![pair("internal")],
            ca: "certs/inside-ca.pem".into(),
            crls: vec![],
            revocation: Revocation::Off,
            trusted_servers: vec![],
            next_hop: Some("director.contoso.internal:5061".parse().unwrap()),
            next_hop_addresses: ips(&["10.10.0.50"]),
        },
        array: Array {
            secrets: SecretFiles {
                current: "secrets/array.current".into(),
                next: None,
                previous: None,
            },
            vips: Vips::default(),
            balancers: SidePair::default(),
            link_port: 5063,
        },
        access: Some(Access {
            fqdn: name("sip.contoso.test"),
            internal_fqdn: name("edge.contoso.internal"),
            certificates: vec![pair("access")],
            client_port: 443,
            federation_port: 5061,
            internal_port: 5061,
            remote_users: true,
            anonymous_users: false,
            register_mode: RegisterMode::Both,
            limits: AccessLimits::default(),
            federation: Federation {
                enabled: true,
                discovery: false,
                partners: vec![],
                blocked: vec![],
                srv_order: SrvOrder::Ocs,
                client_eku: ClientEku::ClientOrServer,
                revocation: Revocation::Soft,
                trust_roots: TrustRoots::System,
                verdict_cache: 1000,
                pending_per_domain: 32,
            },
        }),
        webconf: Some(Webconf {
            fqdn: name("webconf.contoso.test"),
            certificates: vec![pair("webconf")],
            port: 443,
            agent_port: 8057,
            agents: vec![],
            limits: WebconfLimits::default(),
        }),
        av: Some(Av {
            fqdn: name("av.contoso.test"),
            internal_fqdn: name("edge.contoso.internal"),
            certificates: vec![],
            public_address: None,
            realm: "contoso.test".into(),
            udp_port: 3478,
            tcp_port: 443,
            mras_port: 5062,
            relay_ports: edge_common::ports::RELAY_PORTS,
            relay_mode: RelayMode::Open,
            authentication: AuthenticationFiles {
                current: pair("av-auth"),
                next: None,
                previous: None,
            },
            rest_secrets: None,
            token_lifetime_max: std::time::Duration::from_secs(28800),
            peer_allow: vec![],
            limits: AvLimits::default(),
        }),
        firewall: Firewall {
            management: vec![Management {
                side: edge_common::side::Side::Internal,
                from: nets(&["10.10.0.0/16"]),
                tcp: vec![22],
            }],
        },
        dns: Dns {
            external: ips(&["192.0.2.53"]),
            internal: ips(&["10.10.0.53"]),
            ..Dns::default()
        },
        log: Log::default(),
        admin: Admin::default(),
        health: Health::default(),
        state: State::default(),
        lab: None,
        runtime: Runtime::default(),
    }
}
