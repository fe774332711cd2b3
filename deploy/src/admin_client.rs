//! Asks the daemons of this host: over HTTP for their health, over their unix sockets for everything else.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UnixStream};

/// Why a daemon gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there, or the connection broke.
    #[error("{at}: {error}")]
    Connection {
        /// Where.
        at: String,
        /// Why.
        error: io::Error,
    },
    /// It speaks, but not HTTP.
    #[error("{at}: {error}")]
    Http {
        /// Where.
        at: String,
        /// Why.
        error: String,
    },
    /// It speaks, but not JSON.
    #[error("{}: {error}", path.display())]
    Json {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// It understood, and says no.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Its sentence.
        reason: String,
    },
    /// Nothing in time.
    #[error("{at}: no answer within {within:?}")]
    Silence {
        /// Where.
        at: String,
        /// How long it had.
        within: Duration,
    },
}

/// What a health page said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The text, cut at a sane length.
    pub text: String,
}

/// Fetches one page, like `/readyz`.
///
/// # Errors
/// When there is none.
pub async fn page(address: SocketAddr, path: &str, within: Duration) -> Result<Page, ClientError> {
    let at = format!("http://{address}{path}");
    timely(&at, within, fetch(address, path, &at)).await
}

async fn fetch(address: SocketAddr, path: &str, at: &str) -> Result<Page, ClientError> {
    let http = |error: &dyn std::fmt::Display| ClientError::Http {
        at: at.to_owned(),
        error: error.to_string(),
    };
    let socket = TcpStream::connect(address)
        .await
        .map_err(|error| ClientError::Connection {
            at: at.to_owned(),
            error,
        })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(|error| http(&error))?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| http(&error))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| http(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), PAGE_LEN_MAX)
            .collect()
            .await
            .map_err(|error| http(&error))?;
        Ok(Page {
            status,
            text: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        })
    };
    // The connection has to be driven while we wait; its own end says nothing that the answer does not.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    let mut is_open = true;
    loop {
        tokio::select! {
            answer = &mut exchange => return answer,
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

/// Sends one line of JSON to a daemon's admin socket and gives the `result` of its answer.
///
/// # Errors
/// When there is no answer.
pub async fn ask(socket: &Path, request: &Value, within: Duration) -> Result<Value, ClientError> {
    let at = socket.display().to_string();
    let connection = |error| ClientError::Connection {
        at: at.clone(),
        error,
    };
    let exchange = async {
        let stream = UnixStream::connect(socket).await.map_err(connection)?;
        let (reader, mut writer) = stream.into_split();
        writer
            .write_all(format!("{request}\n").as_bytes())
            .await
            .map_err(connection)?;
        let mut line = String::new();
        let mut reader = BufReader::new(reader.take(PAGE_LEN_MAX as u64));
        reader.read_line(&mut line).await.map_err(connection)?;
        let mut answer: Value = serde_json::from_str(&line).map_err(|error| ClientError::Json {
            path: socket.to_owned(),
            error,
        })?;
        if answer["ok"] == true {
            return Ok(answer["result"].take());
        }
        Err(ClientError::Refused {
            path: socket.to_owned(),
            reason: answer["error"]
                .as_str()
                .unwrap_or("refused without a reason")
                .to_owned(),
        })
    };
    timely(&at, within, exchange).await
}

async fn timely<T>(
    at: &str,
    within: Duration,
    exchange: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(within, exchange)
        .await
        .unwrap_or_else(|_| {
            Err(ClientError::Silence {
                at: at.to_owned(),
                within,
            })
        })
}

/// A daemon's metrics fit; whoever sends more is no daemon of ours.
const PAGE_LEN_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    const SOON: Duration = Duration::from_millis(500);

    fn serve(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            let mut chunk = [0; 512];
            while !seen.ends_with(b"\r\n\r\n") {
                let len = socket.read(&mut chunk).unwrap();
                seen.extend_from_slice(&chunk[..len]);
            }
            socket.write_all(answer.as_bytes()).unwrap();
            // A silent server keeps the connection.
            if answer.is_empty() {
                thread::sleep(SOON * 4);
            }
        });
        address
    }

    #[test]
    fn a_page_comes_with_its_status() {
        let address =
            serve("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\ndraining\n");
        let page = run(page(address, "/readyz", SOON)).unwrap();
        assert_eq!(
            page,
            Page {
                status: 503,
                text: "draining\n".into()
            }
        );
    }

    #[test]
    fn nobody_nonsense_and_silence_are_told_apart() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(matches!(
            run(page(closed, "/livez", SOON)),
            Err(ClientError::Connection { .. })
        ));
        let nonsense = serve("SIP/2.0 200 OK\r\n\r\n");
        assert!(matches!(
            run(page(nonsense, "/livez", SOON)),
            Err(ClientError::Http { .. })
        ));
        let silent = serve("");
        assert!(matches!(
            run(page(silent, "/livez", SOON)),
            Err(ClientError::Silence { .. })
        ));
    }

    #[test]
    fn a_socket_answers_a_line_with_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::spawn(move || {
            for answer in [
                r#"{"ok":true,"result":{"flows":3}}"#,
                r#"{"ok":false,"error":"no such command"}"#,
            ] {
                let (mut socket, _) = listener.accept().unwrap();
                let mut request = [0; 64];
                let len = socket.read(&mut request).unwrap();
                assert_eq!(&request[..len], b"{\"command\":\"status\"}\n");
                socket.write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
        });
        let request = serde_json::json!({ "command": "status" });
        assert_eq!(run(ask(&path, &request, SOON)).unwrap()["flows"], 3);
        let refused = run(ask(&path, &request, SOON)).unwrap_err().to_string();
        assert!(
            refused.ends_with("admin.sock: no such command"),
            "{refused}"
        );
    }
}
