//! Media: who may be a peer, and what credentials look like.

use std::time::Duration;

use super::Check;
use super::facts::overlap;
use crate::config::rule;
use crate::config::units::duration_text;
use crate::peer_range;

pub(super) fn apply(check: &mut Check<'_>) {
    peers(check);
    realm(check);
    lifetime(check);
}

fn peers(check: &mut Check<'_>) {
    let file = check.file;
    let Some(av) = &file.av else { return };
    for (index, network) in av.peer_allow.iter().enumerate() {
        let key = format!("av.peer_allow[{index}]");
        if let Some(inside) = file.inside().find(|inside| overlap(inside, network)) {
            check.tell(
                rule::PEER_ALLOW_INSIDE,
                key,
                format!("{network} overlaps {inside}, which is inside"),
            );
        } else if !peer_range::all().any(|range| overlap(&range.network, network)) {
            check.tell(rule::PEER_ALLOW_PUBLIC, key, format!("{network} is public"));
        }
    }
}

fn realm(check: &mut Check<'_>) {
    let Some(realm) = check.file.av.as_ref().and_then(|av| av.realm.as_ref()) else {
        return;
    };
    if let Some(bad) = realm
        .chars()
        .find(|c| c.is_control() || matches!(c, '"' | '\\'))
    {
        check.tell(
            rule::BAD_REALM,
            "av.realm",
            format!("the realm holds {bad:?}"),
        );
    }
}

fn lifetime(check: &mut Check<'_>) {
    let Some(av) = &check.file.av else { return };
    if !(LIFETIME_MIN..=LIFETIME_MAX).contains(&av.token_lifetime_max) {
        let text = duration_text(av.token_lifetime_max);
        check.tell(
            rule::TOKEN_LIFETIME,
            "av.token_lifetime_max",
            format!("{text} is not between 5 min and 7 d"),
        );
    }
}

const LIFETIME_MIN: Duration = Duration::from_secs(5 * 60);
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
