//! A name server for tests: answers over UDP and TCP on loopback what it was told, and counts the questions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// What it does with one question.
#[derive(Clone)]
pub(super) enum Script {
    Records(Vec<Record>),
    Code(ResponseCode),
    /// Over UDP only the truncated flag, over TCP these.
    Truncated(Vec<Record>),
    Silence,
}

#[derive(Clone, Default)]
pub(super) struct Zone {
    scripts: BTreeMap<(String, RecordType), Script>,
}

impl Zone {
    pub(super) fn with(mut self, owner: &str, kind: RecordType, script: Script) -> Self {
        self.scripts.insert((owner.to_owned(), kind), script);
        self
    }

    pub(super) fn a(self, owner: &str, addresses: &[&str]) -> Self {
        let records = addresses
            .iter()
            .map(|text| record(owner, RData::A(A(text.parse().unwrap()))))
            .collect();
        self.with(owner, RecordType::A, Script::Records(records))
    }

    pub(super) fn aaaa(self, owner: &str, addresses: &[&str]) -> Self {
        let records = addresses
            .iter()
            .map(|text| record(owner, RData::AAAA(AAAA(text.parse().unwrap()))))
            .collect();
        self.with(owner, RecordType::AAAA, Script::Records(records))
    }

    pub(super) fn srv(self, owner: &str, targets: &[(u16, u16, u16, &str)]) -> Self {
        let records = targets.iter().map(|target| srv(owner, *target)).collect();
        self.with(owner, RecordType::SRV, Script::Records(records))
    }

    fn script(&self, owner: &str, kind: RecordType) -> Script {
        let missing = if self.scripts.keys().any(|(name, _)| name == owner) {
            Script::Records(Vec::new())
        } else {
            Script::Code(ResponseCode::NXDomain)
        };
        self.scripts
            .get(&(owner.to_owned(), kind))
            .cloned()
            .unwrap_or(missing)
    }
}

pub(super) fn srv(owner: &str, (priority, weight, port, target): (u16, u16, u16, &str)) -> Record {
    record(
        owner,
        RData::SRV(SRV::new(
            priority,
            weight,
            port,
            Name::from_ascii(target).unwrap(),
        )),
    )
}

pub(super) fn cname(owner: &str, target: &str) -> Record {
    record(
        owner,
        RData::CNAME(CNAME(Name::from_ascii(target).unwrap())),
    )
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(Name::from_ascii(owner).unwrap(), 60, data)
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
}

/// One question as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) question: String,
    pub(super) tcp: bool,
    pub(super) from: SocketAddr,
}

impl Server {
    pub(super) async fn start(zone: Zone) -> Self {
        let (udp, tcp) = one_port_for_both().await;
        let address = udp.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve_udp(udp, zone.clone(), Arc::clone(&log)));
        tokio::spawn(serve_tcp(tcp, zone, Arc::clone(&log)));
        Self { address, log }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    pub(super) fn questions(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.question).collect()
    }
}

/// A port that is free for UDP may be taken for TCP by a neighbour.
async fn one_port_for_both() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Zone, log: Arc<Mutex<Vec<Seen>>>) {
    let mut bytes = [0; 4096];
    loop {
        let (len, from) = socket.recv_from(&mut bytes).await.unwrap();
        if let Some(answer) = answer(&bytes[..len], &zone, &log, from, false) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Zone, log: Arc<Mutex<Vec<Seen>>>) {
    loop {
        let (mut stream, from) = listener.accept().await.unwrap();
        let (zone, log) = (zone.clone(), Arc::clone(&log));
        tokio::spawn(async move {
            while let Ok(len) = stream.read_u16().await {
                let mut bytes = vec![0; usize::from(len)];
                stream.read_exact(&mut bytes).await.unwrap();
                let Some(answer) = answer(&bytes, &zone, &log, from, true) else {
                    continue;
                };
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
    }
}

fn answer(
    bytes: &[u8],
    zone: &Zone,
    log: &Mutex<Vec<Seen>>,
    from: SocketAddr,
    tcp: bool,
) -> Option<Vec<u8>> {
    let request = Message::from_vec(bytes).unwrap();
    let query = request.queries[0].clone();
    let owner = query.name().to_lowercase().to_ascii();
    let kind = query.query_type();
    log.lock().unwrap().push(Seen {
        question: format!("{owner} {kind}"),
        tcp,
        from,
    });
    let mut response = Message::response(request.id, request.op_code);
    response.add_query(query);
    match zone.script(&owner, kind) {
        Script::Silence => return None,
        Script::Code(code) => response.metadata.response_code = code,
        Script::Truncated(_) if !tcp => response.metadata.truncation = true,
        Script::Records(records) | Script::Truncated(records) => response.answers = records,
    }
    Some(response.to_vec().unwrap())
}
