//! The inside's SIP server: Kamailio as Director, registrar and home server of one organisation.

use super::ca::Authority;
use super::netns::Netns;
use super::plan::Site;
use super::process::Process;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Where phones that are inside themselves sign in: TLS without a client certificate.
pub const PHONE_PORT: u16 = 5071;

/// A running Director.
#[derive(Debug)]
pub struct Director {
    process: Process,
}

impl Director {
    /// Starts it in the organisation's inside; `inside_ca` signs its certificate and is all that it
    /// trusts.
    pub fn start(site: &Site, netns: &Netns, inside_ca: &Authority, work: &Path) -> Result<Self> {
        let directory = work.join(format!("director-{}", site.name));
        fs::create_dir_all(&directory)?;
        let name = site.inside_name("director");
        let pair = inside_ca.issue(&format!("director-{}", site.name), &[&name, site.director])?;
        let mut tls = String::new();
        for (section, verify) in [
            ("server:default".to_owned(), "yes"),
            (format!("server:{}:{PHONE_PORT}", site.director), "no"),
            ("client:default".to_owned(), "yes"),
        ] {
            // Writing to a String cannot fail.
            writeln!(
                tls,
                "[{section}]\nmethod = TLSv1.2+\nverify_certificate = {verify}\n\
                 require_certificate = {verify}\nprivate_key = {}\ncertificate = {}\nca_list = {}",
                pair.key.display(),
                pair.chain.display(),
                inside_ca.file.display()
            )
            .ok();
        }
        fs::write(directory.join("tls.cfg"), tls)?;
        let script = directory.join("director.cfg");
        fs::write(&script, script_text(site, &name, &directory))?;
        let mut command = netns.command("kamailio");
        command
            .arg("-f")
            .arg(&script)
            .args(["-DD", "-E", "-m", "64", "-M", "8", "-w"]);
        command.arg(&directory).arg("-Y").arg(&directory);
        command.arg("-P").arg(directory.join("pid"));
        let mut process = Process::start(&format!("director-{}", site.name), &mut command, work)?;
        process
            .wait_listening(
                netns,
                &[
                    ("tcp", &format!("{}:5061", site.director)),
                    ("tcp", &format!("{}:{PHONE_PORT}", site.director)),
                ],
            )
            .context("the Director did not start")?;
        Ok(Self { process })
    }

    /// Requests of `method` that reached it, as `LAB` lines of its log (see `director.cfg`).
    #[must_use]
    pub fn requests(&self, method: &str) -> Vec<String> {
        let marker = format!("LAB {method} ");
        let log = self.process.log();
        log.lines()
            .filter_map(|line| line.split_once(&marker))
            .map(|(_, rest)| rest.to_owned())
            .collect()
    }
}

fn script_text(site: &Site, name: &str, directory: &Path) -> String {
    let mut users = String::new();
    for user in site.users {
        writeln!(
            users,
            "    $sht(users=>{}) = \"{}\";",
            user.name, user.password
        )
        .ok();
    }
    TEMPLATE
        .replace("@DOMAIN@", site.domain)
        .replace("@NAME@", name)
        .replace("@ADDRESS@", site.director)
        .replace("@PHONE_PORT@", &PHONE_PORT.to_string())
        .replace("@EDGE@", site.internal)
        .replace("@WORK@", &directory.display().to_string())
        .replace("@USERS@", users.trim_end())
}

const TEMPLATE: &str = include_str!("director.cfg");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::plan::CONTOSO;

    #[test]
    fn no_placeholder_is_left_in_the_script() {
        let text = script_text(&CONTOSO, "director.contoso.internal", Path::new("/w"));
        assert!(!text.replace("\"users=>", "").contains('@'), "{text}");
        assert!(text.contains("$sht(users=>alice) = \"alice-secret\";"));
    }
}
