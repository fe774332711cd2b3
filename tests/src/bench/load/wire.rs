//! As much of SIP as a load needs, read without the product's parser: the ends of messages and single headers.

/// The first whole message of `bytes`: its head with the empty line, and its whole length.
#[must_use]
pub fn first_message(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let body: usize = header(&bytes[..head], b"content-length")
        .and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok())
        .unwrap_or_default();
    (bytes.len() >= head + body).then(|| (&bytes[..head], head + body))
}

/// The value of the first header of that name, which is to be given in lower case.
#[must_use]
pub fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    lines(head).find_map(|line| {
        let rest = line.get(name.len()..)?.strip_prefix(b":")?;
        line[..name.len()]
            .eq_ignore_ascii_case(name)
            .then(|| rest.trim_ascii())
    })
}

/// The lines of a head behind the first, without their ends.
pub fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = head;
    let mut next = move || {
        let end = memchr::memchr(b'\n', rest)?;
        let line = rest[..end].trim_ascii_end();
        rest = &rest[end + 1..];
        Some(line)
    };
    next();
    std::iter::from_fn(next).take_while(|line| !line.is_empty())
}

/// The status of a response; `None` of a request.
#[must_use]
pub fn status(head: &[u8]) -> Option<u16> {
    let code = head.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

/// The decimal number behind the last `-`: the last part of a Call-ID of ours.
#[must_use]
pub fn number_at_end(value: &[u8]) -> Option<u64> {
    let at = memchr::memrchr(b'-', value)?;
    std::str::from_utf8(&value[at + 1..]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_where_their_length_says() {
        let two = b"SIP/2.0 200 OK\r\nCall-ID: a-b-17\r\ncontent-length:3\r\n\r\nabcSIP/2.0";
        let (head, len) = first_message(two).expect("whole");
        assert_eq!(&two[len..], b"SIP/2.0");
        assert_eq!(status(head), Some(200));
        assert_eq!(header(head, b"call-id").and_then(number_at_end), Some(17));
        assert_eq!(header(head, b"call"), None);
        assert!(first_message(&two[..len - 1]).is_none());
        assert_eq!(lines(head).count(), 2);
    }
}
