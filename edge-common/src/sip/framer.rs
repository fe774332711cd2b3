//! Cuts a byte stream into SIP messages and keep-alives (RFC 3261 §18.3, RFC 5626 §3.5.1).
//!
//! The framer owns no buffer. It is shown everything that was received and not yet consumed, and
//! says what stands at the front:
//!
//! ```text
//!  CRLF CRLF │ INVITE sip:… CRLF  Via: … CRLF  Content-Length: 4 CRLF CRLF │ v=0. │ …
//!  └ Ping ───┘└───────────────────────── Message { len } ───────────────────────┘
//! ```
//!
//! Each line of a head is looked at once, whatever the cuts; what the lines told so far is kept in
//! the state. Whoever cannot agree with us on where a message ends could smuggle one inside another,
//! so everything that makes the end uncertain is an error, and the flow has to be closed. What is wrong
//! with the length is said at the end of the head, so that whoever sent it can still be told.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

/// Who opened the connection; it decides what a lone CRLF means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// They connected to us: they ping with CRLF CRLF, and a lone CRLF is a blank line to skip.
    Remote,
    /// We connected to them: each CRLF answers one of our pings.
    Us,
}

/// How much one message may take; ours, not the RFC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes from the first of the start line to the empty line.
    pub head: usize,
    /// Bytes of the body.
    pub body: usize,
}

/// What stands at the front of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing whole yet.
    NeedMore,
    /// Consume `len` bytes and forget them.
    Skip {
        /// Bytes to consume.
        len: usize,
    },
    /// A keep-alive that wants one CRLF back.
    Ping {
        /// Bytes to consume.
        len: usize,
    },
    /// The answer to one of our keep-alives.
    Pong {
        /// Bytes to consume.
        len: usize,
    },
    /// The first `len` bytes are one message, body included.
    Message {
        /// Bytes to consume.
        len: usize,
    },
}

/// The stream cannot be framed any more; the flow has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum FrameError {
    /// Signed, empty, too large to count, or two that differ.
    #[error("Content-Length is not one plain number")]
    ContentLengthInvalid,
    /// Over a stream nothing else tells where the message ends.
    #[error("Content-Length is missing")]
    ContentLengthMissing,
    /// A line feed without its carriage return.
    #[error("a bare LF in the head")]
    BareLineFeed,
    /// A carriage return without its line feed.
    #[error("a bare CR in the head")]
    BareCarriageReturn,
    /// The head passes [`Limits::head`].
    #[error("the head is longer than allowed")]
    HeadTooLong,
    /// The body would pass [`Limits::body`].
    #[error("the body is longer than allowed")]
    BodyTooLong,
}

/// The reader's state between two looks at the stream.
#[derive(Debug)]
pub struct Framer {
    opener: Opener,
    limits: Limits,
    state: State,
    /// Bytes of the stream that were told to be consumed.
    taken: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head(Head),
    /// The head told that the message is `len` bytes in all.
    Body {
        len: usize,
    },
}

/// What the lines read so far have told.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// Where the first line that was not yet looked at starts.
    line: usize,
    /// `line..scanned` holds no line end: a slow sender costs one pass, not n².
    scanned: usize,
    length: Length,
    /// The header that was read last is a Content-Length: a folded line belongs to its value.
    in_length: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Length {
    #[default]
    Unknown,
    /// The header's own line held no value; a folded line has to bring it.
    Folded,
    Known(usize),
    /// Not one plain number, or two that differ. It stays so until the head ends.
    Uncertain,
}

impl Framer {
    /// A framer at the start of a connection.
    #[must_use]
    pub fn new(opener: Opener, limits: Limits) -> Self {
        Self {
            opener,
            limits,
            state: State::Head(Head::default()),
            taken: 0,
        }
    }

    /// Other limits from the next message on; one whose head is complete keeps its own.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes of the connection before what stands at the front now; after an error, before the message that cannot be
    /// cut off: for whoever has to find out why a connection was closed.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.taken
    }

    /// Says what stands at the front of `received`. Consume it before the next call.
    pub fn next(&mut self, received: &[u8]) -> Result<Step, FrameError> {
        let step = self.step(received)?;
        self.taken += match step {
            Step::NeedMore => 0,
            Step::Skip { len }
            | Step::Ping { len }
            | Step::Pong { len }
            | Step::Message { len } => len as u64,
        };
        Ok(step)
    }

    fn step(&mut self, received: &[u8]) -> Result<Step, FrameError> {
        if let State::Head(head) = self.state {
            if let Some(step) = self.blank(received) {
                return Ok(step);
            }
            self.state = head.read(received, self.limits)?;
        }
        match self.state {
            State::Body { len } if received.len() >= len => {
                self.state = State::Head(Head::default());
                Ok(Step::Message { len })
            }
            State::Head(_) | State::Body { .. } => Ok(Step::NeedMore),
        }
    }

    /// Handles line ends in front of a message. `None`: a message starts here.
    fn blank(&self, received: &[u8]) -> Option<Step> {
        match (self.opener, received) {
            (_, [] | [b'\r']) => Some(Step::NeedMore),
            (Opener::Us, [b'\r', b'\n', ..]) => Some(Step::Pong { len: 2 }),
            (Opener::Remote, [b'\r', b'\n', b'\r', b'\n', ..]) => Some(Step::Ping { len: 4 }),
            // It may become a ping; only the next bytes can tell.
            (Opener::Remote, [b'\r', b'\n'] | [b'\r', b'\n', b'\r']) => Some(Step::NeedMore),
            (Opener::Remote, [b'\r', b'\n', ..]) => Some(Step::Skip { len: 2 }),
            (Opener::Us | Opener::Remote, _) => None,
        }
    }
}

impl Head {
    fn read(mut self, received: &[u8], limits: Limits) -> Result<State, FrameError> {
        while let Some(at) = memchr::memchr2(b'\r', b'\n', &received[self.scanned..]) {
            let end = self.scanned + at;
            if received[end] == b'\n' {
                return Err(FrameError::BareLineFeed);
            }
            match received.get(end + 1) {
                Some(b'\n') => {}
                Some(_) => return Err(FrameError::BareCarriageReturn),
                None => {
                    // Only the next byte can tell; look at this one again then.
                    self.scanned = end;
                    return self.within(received.len(), limits).map(State::Head);
                }
            }
            let (start, line) = (self.line, &received[self.line..end]);
            self.line = end + 2;
            self.scanned = self.line;
            self.within(self.line, limits)?;
            if line.is_empty() {
                return self.end(limits);
            }
            // The start line has no name, whatever it looks like.
            if start > 0 {
                self.learn(line);
            }
        }
        self.scanned = received.len();
        self.within(received.len(), limits).map(State::Head)
    }

    fn within(self, len: usize, limits: Limits) -> Result<Self, FrameError> {
        if len > limits.head {
            return Err(FrameError::HeadTooLong);
        }
        Ok(self)
    }

    fn end(self, limits: Limits) -> Result<State, FrameError> {
        match self.length {
            Length::Unknown => Err(FrameError::ContentLengthMissing),
            Length::Folded | Length::Uncertain => Err(FrameError::ContentLengthInvalid),
            Length::Known(body) if body > limits.body => Err(FrameError::BodyTooLong),
            Length::Known(body) => Ok(State::Body {
                len: self.line + body,
            }),
        }
    }

    /// Over a stream the length is mandatory (RFC 3261 §18.3); `l` is its compact form.
    ///
    /// Two lengths that differ are refused: whoever frames by the other one sees other messages.
    fn learn(&mut self, line: &[u8]) {
        if line[0] == b' ' || line[0] == b'\t' {
            return self.fold(line);
        }
        self.in_length = false;
        if matches!(self.length, Length::Folded) {
            self.length = Length::Uncertain;
        }
        // The first letter spares most lines the look for their colon.
        if !matches!(line[0], b'C' | b'c' | b'L' | b'l') {
            return;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            return;
        };
        let name = line[..colon].trim_ascii_end();
        if !name.eq_ignore_ascii_case(b"content-length") && !name.eq_ignore_ascii_case(b"l") {
            return;
        }
        self.in_length = true;
        self.length = match (self.length, value(&line[colon + 1..])) {
            (Length::Uncertain, _) => Length::Uncertain,
            (Length::Known(earlier), Length::Known(now)) if earlier != now => Length::Uncertain,
            // A second header whose value is still to come cannot be compared here.
            (Length::Known(_), Length::Folded) => Length::Uncertain,
            (_, told) => told,
        };
    }

    /// A second piece of a number: "1 CRLF SP 0" may be 1 to one reader and 10 to the next.
    fn fold(&mut self, line: &[u8]) {
        match self.length {
            Length::Folded => self.length = value(line),
            Length::Known(_) if self.in_length && !line.trim_ascii().is_empty() => {
                self.length = Length::Uncertain;
            }
            Length::Known(_) | Length::Unknown | Length::Uncertain => {}
        }
    }
}

fn value(text: &[u8]) -> Length {
    let digits = text.trim_ascii();
    if digits.is_empty() {
        return Length::Folded;
    }
    decimal(digits).map_or(Length::Uncertain, Length::Known)
}

/// Reads digits and nothing else; `str::parse` alone would take a sign.
fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |value, digit| value * 10 + usize::from(digit - b'0')),
    )
}

/// Enough for any body limit with leading zeros, too few to overflow.
const DIGITS_MAX: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        head: 400,
        body: 100,
    };
    const STREAM: &[u8] = b"\r\n\r\n\r\nOPTIONS sip:a SIP/2.0\r\nl: 3\r\n\r\nabc\r\n\r\nBYE sip:a SIP/2.0\r\nContent-Length:0\r\n\r\nACK sip:a SIP/2.0\r\nCall-ID: x\r\n y\r\nContent-Length :\r\n\t 2\r\n\r\n\n\r";

    #[test]
    fn every_cut_of_the_stream_gives_the_same_steps() {
        let whole = steps(Opener::Remote, &[STREAM]);
        assert_eq!(
            whole,
            [
                "ping 4",
                "skip 2",
                "message 34",
                "ping 4",
                "message 39",
                "message 62"
            ]
        );
        every_cut(Opener::Remote, &whole);
    }

    #[test]
    fn an_error_tells_where_its_message_begins() {
        let mut framer = Framer::new(Opener::Remote, LIMITS);
        let good = b"\r\n\r\nBYE sip:a SIP/2.0\r\nl: 3\r\n\r\nabc";
        assert_eq!(framer.next(good), Ok(Step::Ping { len: 4 }));
        let len = good.len() - 4;
        assert_eq!(framer.next(&good[4..]), Ok(Step::Message { len }));
        // What comes in pieces is still one message.
        assert_eq!(framer.next(b"BYE sip:a"), Ok(Step::NeedMore));
        let refused = framer.next(b"BYE sip:a SIP/2.0\r\nl: x\r\n\r\n");
        assert_eq!(refused, Err(FrameError::ContentLengthInvalid));
        assert_eq!(framer.offset(), good.len() as u64);
    }

    #[test]
    fn every_cut_of_the_stream_that_we_opened_gives_the_same_steps() {
        let whole = steps(Opener::Us, &[STREAM]);
        assert_eq!(
            whole,
            [
                "pong 2",
                "pong 2",
                "pong 2",
                "message 34",
                "pong 2",
                "pong 2",
                "message 39",
                "message 62"
            ]
        );
        every_cut(Opener::Us, &whole);
    }

    #[test]
    fn a_head_whose_length_is_not_certain_ends_the_flow() {
        use FrameError::{ContentLengthInvalid, ContentLengthMissing};
        let cases = [
            ("", ContentLengthMissing),
            ("Subject: x\r\n l: 0\r\n", ContentLengthMissing),
            ("l: +1\r\n", ContentLengthInvalid),
            ("l: -1\r\n", ContentLengthInvalid),
            ("l: 0x1\r\n", ContentLengthInvalid),
            ("l: 1, 1\r\n", ContentLengthInvalid),
            ("l:\r\n", ContentLengthInvalid),
            ("l:\r\nSubject: x\r\n", ContentLengthInvalid),
            ("l: 0\r\nContent-Length: 4\r\n", ContentLengthInvalid),
            ("l: 0\r\nContent-Length:\r\n 0\r\n", ContentLengthInvalid),
            ("l: 99999999999999999999\r\n", ContentLengthInvalid),
            ("l: 1\r\n 0\r\n", ContentLengthInvalid),
            ("l:\r\n 1\r\n\t0\r\n", ContentLengthInvalid),
            ("l: 101\r\n", FrameError::BodyTooLong),
            ("Subject: a\nl: 0\r\n", FrameError::BareLineFeed),
            ("Subject: a\rb\r\nl: 0\r\n", FrameError::BareCarriageReturn),
        ];
        for (headers, error) in cases {
            assert_eq!(refused(headers), Err(error), "{headers:?}");
        }
    }

    #[test]
    fn a_wrong_length_is_said_when_the_head_is_whole_and_not_before() {
        let head = b"BYE sip:a SIP/2.0\r\nl: -1\r\nCall-ID: x\r\nl: 0\r\n\r\n";
        let mut framer = Framer::new(Opener::Remote, LIMITS);
        for end in 0..head.len() {
            assert_eq!(framer.next(&head[..end]), Ok(Step::NeedMore), "{end}");
        }
        assert_eq!(framer.next(head), Err(FrameError::ContentLengthInvalid));
    }

    #[test]
    fn a_length_that_is_certain_is_no_doubt() {
        for headers in [
            "l: 0\r\nContent-Length: 00\r\n",
            "l: 0\r\n \r\n",
            "l: 0\r\nSubject: a\r\n 1\r\n",
        ] {
            let step = refused(headers);
            assert!(matches!(step, Ok(Step::Message { .. })), "{headers:?}");
        }
    }

    #[test]
    fn a_head_that_never_ends_is_stopped_at_the_limit() {
        let mut framer = Framer::new(Opener::Remote, LIMITS);
        let mut received = b"OPTIONS sip:a SIP/2.0\r\n".to_vec();
        received.resize(LIMITS.head, b'x');
        assert_eq!(framer.next(&received), Ok(Step::NeedMore));
        received.push(b'x');
        assert_eq!(framer.next(&received), Err(FrameError::HeadTooLong));
    }

    #[test]
    fn a_head_that_is_only_line_feeds_is_refused_at_the_first() {
        let mut framer = Framer::new(Opener::Remote, LIMITS);
        assert_eq!(
            framer.next(b"OPTIONS sip:a SIP/2.0\n"),
            Err(FrameError::BareLineFeed)
        );
    }

    fn refused(headers: &str) -> Result<Step, FrameError> {
        let head = format!("BYE sip:a SIP/2.0\r\n{headers}\r\n");
        Framer::new(Opener::Remote, LIMITS).next(head.as_bytes())
    }

    fn every_cut(opener: Opener, whole: &[String]) {
        for cut in 0..STREAM.len() {
            let (head, tail) = STREAM.split_at(cut);
            assert_eq!(steps(opener, &[head, tail]), whole, "cut at {cut}");
        }
        let drip: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(steps(opener, &drip), whole);
    }

    fn steps(opener: Opener, arrivals: &[&[u8]]) -> Vec<String> {
        let (mut framer, mut pending, mut seen) =
            (Framer::new(opener, LIMITS), Vec::new(), Vec::new());
        for bytes in arrivals {
            pending.extend_from_slice(bytes);
            loop {
                let (name, len) = match framer.next(&pending).expect("stream is lawful") {
                    Step::NeedMore => break,
                    Step::Skip { len } => ("skip", len),
                    Step::Ping { len } => ("ping", len),
                    Step::Pong { len } => ("pong", len),
                    Step::Message { len } => ("message", len),
                };
                seen.push(format!("{name} {len}"));
                pending.drain(..len);
            }
        }
        seen
    }
}
