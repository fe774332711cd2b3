//! Which addresses of partners may be dialled.
//!
//! Whoever runs the DNS of a domain chooses the addresses in it. Without this guard he could have the edge
//! connect to a server inside, to itself, or to the host's loopback, in whatever form of IPv6 hides that.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::Config;
use crate::peer_range;

/// The rules for one resolver.
#[derive(Clone, Debug)]
pub struct AddressRules {
    refused: Vec<IpNet>,
    public: Vec<IpNet>,
}

impl AddressRules {
    /// Refuses `refused` and every special-purpose address that is not in `public`.
    #[must_use]
    pub const fn new(refused: Vec<IpNet>, public: Vec<IpNet>) -> Self {
        Self { refused, public }
    }

    /// For partners: neither the inside nor any address of our own, on either side of any member.
    #[must_use]
    pub fn for_partners(config: &Config) -> Self {
        let own = config
            .members
            .iter()
            .flat_map(|member| member.external.ips().chain(member.internal.ips()));
        let (external, internal) = (&config.array.vips.external, &config.array.vips.internal);
        let vips = [
            &external.access,
            &external.webconf,
            &external.av,
            &internal.access,
            &internal.av,
        ];
        let hosts = own
            .chain(vips.into_iter().flatten().copied())
            .map(IpNet::from);
        let refused = hosts
            .chain(config.internal.networks.iter().copied())
            .collect();
        let public = config.lab.as_ref().map(|lab| lab.treat_as_public.clone());
        Self::new(refused, public.unwrap_or_default())
    }

    /// Says whether `address`, and every address hidden in it, may be dialled.
    #[must_use]
    pub fn allow(&self, address: IpAddr) -> bool {
        peer_range::unmasked(address).all(|address| {
            let within =
                |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
            !within(&self.refused)
                && (peer_range::classify(address).is_none() || within(&self.public))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn allowed(rules: &AddressRules, text: &str) -> bool {
        rules.allow(text.parse().unwrap())
    }

    #[test]
    fn only_public_addresses_of_others_are_dialled() {
        let rules = AddressRules::new(nets(&["9.9.9.10/32", "2600::/64"]), vec![]);
        for good in ["9.9.9.9", "2600:0:0:1::1"] {
            assert!(allowed(&rules, good), "{good}");
        }
        for bad in [
            "9.9.9.10",
            "2600::1",
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:9.9.9.10",
            "64:ff9b::10.0.0.1",
            "2002:0a00:0001::",
            "2001:db8::1",
        ] {
            assert!(!allowed(&rules, bad), "{bad}");
        }
    }

    #[test]
    fn the_configuration_says_what_is_our_own() {
        let example = include_str!("../../../deploy/examples/single.toml");
        let config = crate::config::check(example, None).config.unwrap();
        let rules = AddressRules::for_partners(&config);
        for own in [
            "198.51.100.10",
            "198.51.100.12",
            "2001:db8:100::10",
            "10.10.0.10",
            "10.10.7.7",
            "::ffff:10.10.0.10",
        ] {
            assert!(!allowed(&rules, own), "{own}");
        }
        assert!(
            allowed(&rules, "198.51.100.20"),
            "the lab's ranges count as public"
        );
        let product = Config {
            lab: None,
            ..config
        };
        assert!(!allowed(
            &AddressRules::for_partners(&product),
            "198.51.100.20"
        ));
    }

    #[test]
    fn a_lab_may_treat_documentation_ranges_as_public_but_not_its_own_hosts() {
        let rules = AddressRules::new(
            nets(&["198.51.100.10/32", "10.10.0.0/16"]),
            nets(&["198.51.100.0/24", "2001:db8::/32"]),
        );
        assert!(allowed(&rules, "198.51.100.20") && allowed(&rules, "2001:db8::1"));
        assert!(
            !allowed(&rules, "198.51.100.10")
                && !allowed(&rules, "10.10.0.1")
                && !allowed(&rules, "203.0.113.1")
        );
    }
}
