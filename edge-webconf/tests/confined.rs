//! What a confined process can still do. It is a process of its own, with one test in one thread: there is no way back.

#![expect(
    clippy::print_stdout,
    reason = "a test without a harness tells what it has seen"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;

use edge_webconf::confine::{Confined, Extent, confine};

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = directory.path().join("run");
    std::fs::create_dir(&run).expect("a directory");
    let notify = UnixDatagram::bind(run.join("notify")).expect("binds");
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("an address");
    let mut earlier = TcpStream::connect(address).expect("connects");

    let confined = confine(std::slice::from_ref(&run));
    println!("{confined:?}");
    assert_eq!(
        confined.seccomp,
        Ok(()),
        "seccomp is in every kernel that we know"
    );
    if confined.landlock.is_err() {
        println!("no landlock here: what it forbids is not looked at");
    }
    // On threads that come later, too.
    std::thread::spawn(move || {
        let refused = TcpStream::connect(address).expect_err("a TCP connection");
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
        let refused = UdpSocket::bind("127.0.0.1:0").expect_err("a UDP socket");
        assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    })
    .join()
    .expect("both are refused");
    if let Confined {
        landlock: Ok(extent),
        ..
    } = confined
    {
        let outside = std::fs::write(directory.path().join("file"), "x").expect_err("a file");
        assert_eq!(outside.kind(), ErrorKind::PermissionDenied);
        let program = std::process::Command::new("/bin/true").status();
        assert_eq!(
            program.expect_err("a program").kind(),
            ErrorKind::PermissionDenied
        );
        println!("landlock: {extent:?}");
        assert!(matches!(extent, Extent::Whole | Extent::Part));
    }

    // What is open works, what comes in is taken, systemd is told, its own directory is written, files are read.
    let (mut accepted, _) = listener.accept().expect("accepts");
    earlier.write_all(b"hello").expect("writes");
    let mut seen = [0; 5];
    accepted.read_exact(&mut seen).expect("reads");
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.connect(run.join("notify")).expect("connects");
    sender.send(b"READY=1").expect("sends");
    assert_eq!(notify.recv(&mut [0; 16]).expect("receives"), 7);
    std::fs::write(run.join("file"), "x").expect("writes");
    std::fs::remove_file(run.join("file")).expect("removes");
    std::fs::read("/proc/self/status").expect("reads");
    println!("confined: ok");
}
