#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]
//! Reading what `strace -f -y` wrote: which system calls, which files, which kinds of sockets.

use std::collections::BTreeSet;

/// What a traced program did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Names of the system calls.
    pub calls: BTreeSet<String>,
    /// Files that it opened for reading.
    pub read: BTreeSet<String>,
    /// Files that it opened for writing, made, renamed, removed or bound a socket to.
    pub written: BTreeSet<String>,
    /// Address families of its sockets.
    pub families: BTreeSet<String>,
    /// Whether it asked for memory that is writable and executable at once.
    pub writable_code: bool,
}

/// Reads a trace. Lines that are no calls (signals, exits) are passed over.
#[must_use]
pub fn read(trace: &str) -> Deeds {
    let mut deeds = Deeds::default();
    for line in trace.lines() {
        let line = line
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start();
        let Some((name, rest)) = line.split_once('(') else {
            continue;
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        deeds.calls.insert(name.to_owned());
        deeds.note(name, rest);
    }
    deeds
}

impl Deeds {
    fn note(&mut self, name: &str, arguments: &str) {
        let failed = arguments.contains(") = -1 ");
        match name {
            // A failed look at a file that is not there is no deed.
            "openat" | "open" if !failed => {
                let Some(path) = quoted(arguments) else {
                    return;
                };
                let writes = ["O_WRONLY", "O_RDWR", "O_CREAT"]
                    .iter()
                    .any(|flag| arguments.contains(flag));
                let list = if writes {
                    &mut self.written
                } else {
                    &mut self.read
                };
                list.insert(path.to_owned());
            }
            "unlink" | "unlinkat" | "mkdir" | "mkdirat" | "rename" | "renameat" | "renameat2"
            | "chmod" | "fchmodat" | "truncate" | "symlink" | "link"
                if !failed =>
            {
                self.written.extend(quoted(arguments).map(str::to_owned));
            }
            "bind" if arguments.contains("sun_path=\"") && !failed => {
                self.written.extend(quoted(arguments).map(str::to_owned));
            }
            "socket" | "socketpair" => {
                let family = arguments.split(',').next().unwrap_or_default();
                self.families.insert(family.trim().to_owned());
            }
            "mmap" | "mprotect" | "pkey_mprotect" => {
                self.writable_code |=
                    arguments.contains("PROT_WRITE") && arguments.contains("PROT_EXEC");
            }
            _ => {}
        }
    }
}

fn quoted(arguments: &str) -> Option<&str> {
    let (_, rest) = arguments.split_once('"')?;
    rest.split_once('"').map(|(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read() {
        let deeds = read(TRACE);
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(list(&deeds.calls), "bind mprotect openat socket unlink");
        assert_eq!(list(&deeds.read), "/etc/edge/edge.toml");
        assert_eq!(list(&deeds.written), "/run/edge-av/admin.sock /var/lib/x");
        assert_eq!(list(&deeds.families), "AF_INET AF_UNIX");
        assert!(!deeds.writable_code);
        assert!(read("1 mmap(NULL, 1, PROT_READ|PROT_WRITE|PROT_EXEC, 0) = 0").writable_code);
    }

    const TRACE: &str = r#"12 openat(AT_FDCWD</>, "/etc/edge/edge.toml", O_RDONLY|O_CLOEXEC) = 3</etc/edge/edge.toml>
12 openat(AT_FDCWD</>, "/no/such", O_RDONLY) = -1 ENOENT (No such file or directory)
13 openat(AT_FDCWD</>, "/var/lib/x", O_WRONLY|O_CREAT, 0600) = 4</var/lib/x>
13 socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0) = 5<UNIX:[1]>
13 bind(5<UNIX:[1]>, {sa_family=AF_UNIX, sun_path="/run/edge-av/admin.sock"}, 110) = 0
13 unlink("/run/edge-av/admin.sock") = -1 ENOENT (No such file or directory)
14 socket(AF_INET, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP) = 6<UDP:[2]>
14 mprotect(0x7f, 4096, PROT_READ) = 0
14 <... read resumed>"x", 1) = 1
14 --- SIGTERM {si_signo=SIGTERM} ---
14 +++ exited with 0 +++
"#;
}
