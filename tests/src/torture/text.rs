//! A message cut into its lines: slow, obvious, and with none of the proxy's own code in it.

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// The start line with its CRLF.
    pub start: &'a [u8],
    /// The headers with their folds and the empty line.
    head: &'a [u8],
    /// What follows.
    pub body: &'a [u8],
}

/// One header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// All its lines, with every CRLF.
    pub lines: &'a [u8],
    /// What follows the colon, without blanks and line ends around it.
    pub value: &'a [u8],
    name: &'a [u8],
}

impl<'a> Text<'a> {
    /// Takes all bytes for one message; `None` when its head does not end.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let start = find(bytes, b"\r\n")? + 2;
        let body = find(bytes, b"\r\n\r\n")? + 4;
        Some(Self {
            bytes,
            start: &bytes[..start],
            head: &bytes[start..body],
            body: &bytes[body..],
        })
    }

    /// The messages of a stream, each as long as it says; what is left over is none.
    #[must_use]
    pub fn split(mut stream: &'a [u8]) -> Vec<Self> {
        let mut found = Vec::new();
        loop {
            while let Some(rest) = stream.strip_prefix(b"\r\n") {
                stream = rest;
            }
            let Some(text) = Self::of(stream) else {
                return found;
            };
            let told = text.first("content-length").map(|header| header.value);
            let len = told
                .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok())
                .map(|body| text.start.len() + text.head.len() + body);
            let Some(whole) = len.and_then(|len| stream.get(..len)) else {
                return found;
            };
            stream = &stream[whole.len()..];
            found.extend(Self::of(whole));
        }
    }

    /// All headers in order.
    #[must_use]
    pub fn headers(&self) -> Vec<Header<'a>> {
        let mut found = Vec::new();
        let mut rest = self.head;
        while rest != b"\r\n" && !rest.is_empty() {
            let mut end = line_end(rest);
            while matches!(rest.get(end), Some(b' ' | b'\t')) {
                end += line_end(&rest[end..]);
            }
            let (lines, after) = rest.split_at(end);
            rest = after;
            let colon = lines.iter().position(|&b| b == b':').unwrap_or(0);
            found.push(Header {
                lines,
                value: lines[colon + 1..].trim_ascii(),
                name: lines[..colon].trim_ascii(),
            });
        }
        found
    }

    /// The headers of one name; `name` in small letters.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<Header<'a>> {
        let mut headers = self.headers();
        headers.retain(|header| header.name() == name);
        headers
    }

    /// The first header of one name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<Header<'a>> {
        self.all(name).first().copied()
    }
}

impl Header<'_> {
    /// The long name in small letters.
    #[must_use]
    pub fn name(&self) -> String {
        let name = String::from_utf8_lossy(self.name).to_lowercase();
        match name.as_str() {
            "v" => "via",
            "f" => "from",
            "t" => "to",
            "i" => "call-id",
            "l" => "content-length",
            _ => return name,
        }
        .to_owned()
    }
}

/// The response that a server makes of a request, by RFC 3261 §8.2.6.
#[must_use]
pub fn response(request: Text<'_>, status: &str) -> Vec<u8> {
    let mut bytes = format!("SIP/2.0 {status}\r\n").into_bytes();
    for header in request.headers() {
        if ECHOED.contains(&header.name().as_str()) {
            bytes.extend_from_slice(header.lines);
        }
    }
    bytes.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    bytes
}

/// Where `needle` stands first.
#[must_use]
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

fn line_end(text: &[u8]) -> usize {
    find(text, b"\r\n").map_or(text.len(), |at| at + 2)
}

/// What a response has from its request.
pub const ECHOED: [&str; 5] = ["via", "from", "to", "call-id", "cseq"];
