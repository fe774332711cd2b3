//! A name server that knows a few names.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone)]
pub(crate) enum Record {
    A(Ipv4Addr),
    Srv(u16, &'static str),
}

pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// Serves until the test ends.
    pub(crate) fn start(records: BTreeMap<&'static str, Record>) -> Self {
        let socket = UdpSocket::bind("127.0.5.53:0").expect("a socket");
        let address = socket.local_addr().expect("bound");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut question = [0; 1500];
            while let Ok((len, from)) = socket.recv_from(&mut question) {
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer(&question[..len], &records) {
                    // A client that went away misses nothing.
                    let _sent = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, asked }
    }
}

fn answer(question: &[u8], records: &BTreeMap<&'static str, Record>) -> Option<Vec<u8>> {
    let (name, end) = read_name(question)?;
    let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
    let record = records.get(name.to_lowercase().as_str());
    let data = match (record, kind) {
        (Some(Record::A(address)), A) => Some(address.octets().to_vec()),
        (Some(Record::Srv(port, target)), SRV) => Some(srv(*port, target)),
        (_, _) => None,
    };
    let code = if record.is_some() { 0 } else { NXDOMAIN };
    let mut out = question[..2].to_vec();
    out.extend_from_slice(&[
        0x85,
        0x80 | code,
        0,
        1,
        0,
        u8::from(data.is_some()),
        0,
        0,
        0,
        0,
    ]);
    out.extend_from_slice(&question[HEADER_LEN..end + 4]);
    if let Some(data) = data {
        out.extend_from_slice(&[0xc0, 0x0c]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 1, 0]);
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(&data);
    }
    Some(out)
}

fn read_name(message: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER_LEN);
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + len)?).into_owned());
        at += len;
    }
}

fn srv(port: u16, target: &str) -> Vec<u8> {
    let mut data = vec![0, 0, 0, 0];
    data.extend_from_slice(&port.to_be_bytes());
    for label in target.split('.') {
        data.push(label.len() as u8);
        data.extend_from_slice(label.as_bytes());
    }
    data.push(0);
    data
}

const HEADER_LEN: usize = 12;
const NXDOMAIN: u8 = 3;
const A: u16 = 1;
const SRV: u16 = 33;
