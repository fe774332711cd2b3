//! Directories, logs and the lab.

use super::Check;
use super::facts::overlap;
use crate::config::operation::LogLevel;
use crate::config::rule;
use crate::peer_range;

pub(super) fn apply(check: &mut Check<'_>) {
    directories(check);
    log(check);
    lab(check);
    collector(check);
}

fn directories(check: &mut Check<'_>) {
    let file = check.file;
    for (key, directory) in [
        ("admin.directory", &file.admin.directory),
        ("state.directory", &file.state.directory),
    ] {
        if directory.is_relative() {
            check.tell(
                rule::DIRECTORY_RELATIVE,
                key,
                format!("{} is relative", directory.display()),
            );
        }
    }
}

fn log(check: &mut Check<'_>) {
    if check.file.log.level == LogLevel::Trace {
        check.tell(
            rule::LOG_TRACE,
            "log.level",
            "release builds hold no trace lines",
        );
    }
}

fn collector(check: &mut Check<'_>) {
    let file = check.file;
    let Some(hep) = file.access.as_ref().and_then(|access| access.hep.as_ref()) else {
        return;
    };
    let address = hep.collector;
    let key = "access.hep.collector";
    if !file.is_inside(address) {
        let message = format!("{address} is not inside");
        check.tell(rule::COLLECTOR_PLACE, key, message);
    } else if file
        .members
        .iter()
        .filter_map(|member| member.internal.as_ref())
        .any(|own| own.addresses.iter().any(|own| own.addr() == address))
    {
        let message = format!("{address} is an edge host's own");
        check.tell(rule::COLLECTOR_PLACE, key, message);
    }
    if hep.bodies {
        let message = "texts of messages and keys of media are copied";
        check.tell(rule::COLLECTOR_BODIES, "access.hep.bodies", message);
    }
}

fn lab(check: &mut Check<'_>) {
    let file = check.file;
    let Some(lab) = &file.lab else { return };
    check.tell(rule::LAB, "lab", "reserved ranges count as public");
    for (index, network) in lab.treat_as_public.iter().enumerate() {
        let key = format!("lab.treat_as_public[{index}]");
        if let Some(inside) = file.inside().find(|inside| overlap(inside, network)) {
            check.tell(
                rule::LAB_RANGE_INSIDE,
                key,
                format!("{network} overlaps {inside}, which is inside"),
            );
        } else if !peer_range::all().any(|range| overlap(&range.network, network)) {
            check.tell(rule::LAB_RANGE_PUBLIC, key, format!("{network} is public"));
        }
    }
}
