//! What was seen of the edge, held against the table.

use edge_access::proxy::refusal::Drop;
use std::time::Duration;

use super::stage::{CLIENT, Cut, MEMBER, Seen, Stage};
use super::table::Must;
use super::text::{ECHOED, Header, Text, find, response};

/// What was seen, or why that is wrong. However the stream is cut, the same has to be seen.
pub fn of(must: Must, bytes: &[u8]) -> Result<String, String> {
    let whole = in_pieces(must, bytes, Cut::Whole)?;
    let dripped =
        in_pieces(must, bytes, Cut::Bytes).map_err(|wrong| format!("byte by byte: {wrong}"))?;
    same("byte by byte", &dripped, &whole)?;
    Ok(whole)
}

fn in_pieces(must: Must, bytes: &[u8], cut: Cut) -> Result<String, String> {
    let mut stage = Stage::set(cut)?;
    match must {
        Must::Forward(count) => forwarded(&mut stage, bytes, count),
        Must::ForwardAndClose(count, reason) => {
            forwarded_and_closed(&mut stage, bytes, count, reason)
        }
        Must::Answer(status) => {
            let seen = stage.from_outside(bytes);
            same("connection closed", &seen.closed, &None)?;
            answered(&seen, bytes, status)
        }
        Must::AnswerAndClose(status, reason) => {
            let seen = stage.from_outside(bytes);
            let line = answered(&seen, bytes, status)?;
            same("connection closed", &seen.closed, &Some(reason))?;
            Ok(format!("{line}, closed: {reason}"))
        }
        Must::Close(reason) => {
            let seen = stage.from_outside(bytes);
            let closed = Seen {
                closed: Some(reason),
                ..Seen::default()
            };
            expect(&seen, &closed)?;
            Ok(format!("closed: {reason}"))
        }
        Must::Wait => waited(&mut stage, bytes),
        Must::GoBack => went_back(&mut stage, bytes),
        Must::Discard(why) => {
            let asked = under_our_via(&mut stage, bytes)?;
            discarded(&stage.from_inside(&asked), why)?;
            Ok(format!("discarded: {}", why.label()))
        }
        Must::DiscardUnasked => {
            discarded(&stage.from_inside(bytes), Drop::ResponseUnknown)?;
            Ok(format!("discarded: {}", Drop::ResponseUnknown.label()))
        }
    }
}

fn forwarded(stage: &mut Stage, bytes: &[u8], count: usize) -> Result<String, String> {
    let (came, seen) = (Text::split(bytes), stage.from_outside(bytes));
    all_unchanged(&came, &seen, count)?;
    same("connection closed", &seen.closed, &None)?;
    let again = stage.from_outside(bytes);
    // What nothing answers is kept in no transaction and leaves as it left before.
    if !again.inside.is_empty() && again.inside != seen.inside {
        return Err(format!("a retransmission went on: {}", told(&again)));
    }
    for (came, went) in came.iter().zip(&seen.inside) {
        answer_returns(stage, went)?;
        branch_is_its_own(stage, *came, went)?;
    }
    Ok(format!("{count} forwarded, answered from inside"))
}

fn forwarded_and_closed(
    stage: &mut Stage,
    bytes: &[u8],
    count: usize,
    reason: &'static str,
) -> Result<String, String> {
    let (came, seen) = (Text::split(bytes), stage.from_outside(bytes));
    all_unchanged(&came, &seen, count)?;
    same("connection closed", &seen.closed, &Some(reason))?;
    Ok(format!("{count} forwarded, closed: {reason}"))
}

fn all_unchanged(came: &[Text<'_>], seen: &Seen, count: usize) -> Result<(), String> {
    same("messages in the file", &came.len(), &count)?;
    if seen.inside.len() != count || !seen.outside.is_empty() || !seen.dropped.is_empty() {
        return Err(told(seen));
    }
    for (came, went) in came.iter().zip(&seen.inside) {
        unchanged(*came, whole(went)?)?;
    }
    Ok(())
}

/// Everything is as it came but our own headers, one hop less, and where the sender really is.
fn unchanged(came: Text<'_>, went: Text<'_>) -> Result<(), String> {
    same("start line", &lossy(went.start), &lossy(came.start))?;
    if went.body != came.body {
        return Err("the body is another".to_owned());
    }
    let (before, mut after) = (came.headers(), went.headers());
    let own_via = format!("Via: SIP/2.0/TLS {MEMBER}:5061;branch=z9hG4bK");
    starts(&take_first(&mut after)?, own_via.as_bytes())?;
    let own = own_routes(came);
    for line in &own {
        starts(&take_first(&mut after)?, line.as_bytes())?;
    }
    let trust = after.pop().map(|header| header.name());
    same(
        "last header",
        &trust.as_deref(),
        &Some("ms-edge-proxy-message-trust"),
    )?;
    same("headers", &after.len(), &before.len())?;
    let top = before.iter().position(|header| header.name() == "via");
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        if Some(at) == top {
            noted(before.lines, after.lines)?;
        } else if before.name() == "max-forwards" {
            same("Max-Forwards", &lossy(after.lines), &one_less(before.lines))?;
        } else {
            same("header", &lossy(after.lines), &lossy(before.lines))?;
        }
    }
    Ok(())
}

/// A registration is led back here by Path, a dialog by one route for each side.
fn own_routes(came: Text<'_>) -> Vec<&'static str> {
    let method = came.start.split(|&b| b == b' ').next().unwrap_or_default();
    match method {
        b"REGISTER" => vec!["Path: <sip:"],
        b"BYE" | b"MESSAGE" | b"OPTIONS" => Vec::new(),
        _ => vec!["Record-Route: <sip:"; 2],
    }
}

/// The sender's Via says where it really is and nothing that it claimed of that.
fn noted(came: &[u8], went: &[u8]) -> Result<(), String> {
    let (came, went) = (lossy(came), lossy(went));
    let end = came.find(',').unwrap_or_else(|| came.trim_end().len());
    let (element, rest) = came.split_at(end);
    let (address, port) = CLIENT.split_once(':').unwrap_or_default();
    let kept: Vec<&str> = element
        .split(';')
        .filter(|param| !param.starts_with("received="))
        .collect();
    let kept = kept.join(";").replace(";rport", &format!(";rport={port}"));
    let head = format!("{kept};received={address};ms-received-port={port};ms-received-cid=");
    let id = went
        .strip_prefix(&head)
        .and_then(|tail| tail.strip_suffix(rest));
    if id.is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Ok(());
    }
    Err(format!("Via: {went:?} instead of {head:?}…{rest:?}"))
}

fn one_less(lines: &[u8]) -> String {
    let text = lossy(lines);
    let (name, value) = text.split_once(':').unwrap_or_default();
    let digits = value.trim();
    let hops: u32 = digits.parse().unwrap_or_default();
    format!(
        "{name}:{}",
        value.replacen(digits, &hops.saturating_sub(1).to_string(), 1)
    )
}

/// The inside accepts, and the client gets that without our Via.
fn answer_returns(stage: &mut Stage, went: &[u8]) -> Result<(), String> {
    let went = whole(went)?;
    let ours = went.first("via").ok_or("no Via went inside")?;
    let answer = response(went, "200 OK");
    let at = find(&answer, ours.lines).ok_or("no Via in our answer")?;
    let expected = [&answer[..at], &answer[at + ours.lines.len()..]].concat();
    let seen = stage.from_inside(&answer);
    same("answers to the client", &seen.outside.len(), &1)?;
    same("answer", &lossy(&seen.outside[0]), &lossy(&expected))
}

/// A request that differs in its Call-ID alone goes inside under another branch.
fn branch_is_its_own(stage: &mut Stage, came: Text<'_>, went: &[u8]) -> Result<(), String> {
    let call_id = came.first("call-id").ok_or("no Call-ID in the file")?;
    let mut bytes = came.bytes.to_vec();
    let value = find(&bytes, call_id.lines)
        .and_then(|at| Some(at + find(call_id.lines, call_id.value)? + call_id.value.len() - 1))
        .ok_or("the Call-ID is not where it is")?;
    bytes[value] = if bytes[value] == b'x' { b'y' } else { b'x' };
    let seen = stage.from_outside(&bytes);
    let branch = |bytes: &[u8]| Some(Text::of(bytes)?.first("via")?.value.to_vec());
    let other = seen.inside.first().and_then(|bytes| branch(bytes));
    if other.is_none() || other == branch(went) {
        return Err("a request with another Call-ID has the same branch".to_owned());
    }
    Ok(())
}

fn answered(seen: &Seen, bytes: &[u8], status: u16) -> Result<String, String> {
    let (true, [answer]) = (seen.inside.is_empty(), &seen.outside[..]) else {
        return Err(told(seen));
    };
    let (request, answer) = Text::of(bytes)
        .zip(Text::of(answer))
        .ok_or("half a message")?;
    let line = lossy(answer.start);
    let line = line.trim_end().strip_prefix("SIP/2.0 ").unwrap_or(&line);
    if !line.starts_with(&format!("{status} ")) {
        return Err(format!("{line} instead of {status}"));
    }
    for name in ECHOED {
        let (asked, told) = (request.all(name), answer.all(name));
        let alike = |(asked, told): (&Header<'_>, &Header<'_>)| told.value.starts_with(asked.value);
        if asked.len() != told.len() || !asked.iter().zip(&told).all(alike) {
            return Err(format!("{line} with another {name}"));
        }
    }
    if status == 420 {
        let value = |text: Text<'_>, name| text.first(name).map(|header| lossy(header.value));
        let unknown = value(request, "proxy-require");
        same("Unsupported", &value(answer, "unsupported"), &unknown)?;
    }
    Ok(line.to_owned())
}

fn waited(stage: &mut Stage, bytes: &[u8]) -> Result<String, String> {
    expect(&stage.from_outside(bytes), &Seen::default())?;
    expect(&stage.wait(IDLE / 2), &Seen::default())?;
    let idle = Seen {
        closed: Some("idle"),
        ..Seen::default()
    };
    expect(&stage.wait(IDLE), &idle)?;
    Ok("waits for more, then closed: idle".to_owned())
}

fn went_back(stage: &mut Stage, bytes: &[u8]) -> Result<String, String> {
    discarded(&stage.from_inside(bytes), Drop::ResponseUnknown)?;
    let asked = under_our_via(stage, bytes)?;
    let seen = stage.from_inside(&asked);
    let back = Seen {
        outside: vec![bytes.to_vec()],
        ..Seen::default()
    };
    expect(&seen, &back)?;
    Ok("went back as it is; unasked: discarded".to_owned())
}

fn discarded(seen: &Seen, why: Drop) -> Result<(), String> {
    let dropped = Seen {
        dropped: vec![why],
        ..Seen::default()
    };
    expect(seen, &dropped)
}

/// The response as if its request had come by here: our Via stands on top of its own.
fn under_our_via(stage: &mut Stage, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let inside = stage.own_request("OPTIONS")?;
    let via = Text::of(&inside).and_then(|text| text.first("via"));
    let via = via.ok_or("no Via went inside")?;
    let start = Text::of(bytes).ok_or("half a response")?.start.len();
    Ok([&bytes[..start], via.lines, &bytes[start..]].concat())
}

fn whole(bytes: &[u8]) -> Result<Text<'_>, String> {
    Text::of(bytes).ok_or_else(|| "half a message".to_owned())
}

fn take_first<'a>(headers: &mut Vec<Header<'a>>) -> Result<Header<'a>, String> {
    if headers.is_empty() {
        return Err("headers are missing".to_owned());
    }
    Ok(headers.remove(0))
}

fn starts(header: &Header<'_>, with: &[u8]) -> Result<(), String> {
    if header.lines.starts_with(with) {
        return Ok(());
    }
    Err(format!(
        "{:?} instead of {:?}…",
        lossy(header.lines),
        lossy(with)
    ))
}

fn expect(seen: &Seen, expected: &Seen) -> Result<(), String> {
    if seen == expected {
        Ok(())
    } else {
        Err(told(seen))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, seen: &T, expected: &T) -> Result<(), String> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{what}: {seen:?} instead of {expected:?}"))
}

/// First lines and reasons of all that was seen.
fn told(seen: &Seen) -> String {
    let first = |bytes: &Vec<u8>| {
        let line = bytes.split(|&b| b == b'\r').next().unwrap_or_default();
        lossy(line)
    };
    let lines = |all: &[Vec<u8>]| all.iter().map(first).collect::<Vec<_>>();
    format!(
        "inside {:?}, to the client {:?}, closed {:?}, dropped {:?}",
        lines(&seen.inside),
        lines(&seen.outside),
        seen.closed,
        seen.dropped
    )
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Longer than a connection may be idle by default.
const IDLE: Duration = Duration::from_secs(25 * 60);
