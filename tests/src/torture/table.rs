//! What the edge must do with each message that comes over a TLS stream.

use edge_access::proxy::refusal::Drop;

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its file in the collection.
    pub file: &'static str,
    /// What the edge does with it.
    pub must: Must,
}

/// What the edge does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// That many requests go inside with nothing changed but what a proxy changes; their answers come back.
    Forward(usize),
    /// So many requests go inside; then the edge closes the connection for that reason.
    ForwardAndClose(usize, &'static str),
    /// The edge refuses it; the connection goes on.
    Answer(u16),
    /// The edge refuses it and closes the connection for that reason.
    AnswerAndClose(u16, &'static str),
    /// The edge closes the connection for that reason, without a word.
    Close(&'static str),
    /// The edge waits for the rest, until the connection has been idle for too long.
    Wait,
    /// A response that goes back as it is when its request came by here, and is thrown away when not.
    GoBack,
    /// A response that is thrown away for that reason even when its request came by here.
    Discard(Drop),
    /// A response that was never asked for is thrown away.
    DiscardUnasked,
}

const fn row(file: &'static str, must: Must) -> Row {
    Row { file, must }
}

/// All messages of both papers.
pub const TABLE: &[Row] = &[
    // RFC 4475 §3.1.1: lawful, however odd.
    row("rfc4475/wsinv.dat", Must::Forward(1)),
    row("rfc4475/intmeth.dat", Must::Forward(1)),
    row("rfc4475/esc01.dat", Must::Forward(1)),
    row("rfc4475/escnull.dat", Must::Forward(1)),
    // A method that is no REGISTER for all its escapes: it goes inside as one that nobody knows.
    row("rfc4475/esc02.dat", Must::Forward(1)),
    row("rfc4475/lwsdisp.dat", Must::Forward(1)),
    row("rfc4475/longreq.dat", Must::Forward(1)),
    // Over a stream what follows the first message is the second one; what that one's length leaves over
    // is a third, without a length.
    row(
        "rfc4475/dblreq.dat",
        Must::ForwardAndClose(2, "content_length_missing"),
    ),
    row("rfc4475/semiuri.dat", Must::Forward(1)),
    row("rfc4475/transports.dat", Must::Forward(1)),
    row("rfc4475/mpart01.dat", Must::Forward(1)),
    row("rfc4475/unreason.dat", Must::GoBack),
    // 100 is between two hops; that it is read, empty phrase and all, is why it is absorbed.
    row(
        "rfc4475/noreason.dat",
        Must::Discard(Drop::ResponseAbsorbed),
    ),
    // §3.1.2: not lawful.
    row("rfc4475/badinv01.dat", Must::Answer(400)),
    row("rfc4475/clerr.dat", Must::Wait),
    row(
        "rfc4475/ncl.dat",
        Must::AnswerAndClose(400, "content_length_invalid"),
    ),
    row("rfc4475/scalar02.dat", Must::Answer(400)),
    row(
        "rfc4475/scalarlg.dat",
        Must::Discard(Drop::ResponseMalformed),
    ),
    row("rfc4475/quotbal.dat", Must::Answer(400)),
    row("rfc4475/ltgtruri.dat", Must::Answer(400)),
    row("rfc4475/lwsruri.dat", Must::Answer(400)),
    row("rfc4475/lwsstart.dat", Must::Answer(400)),
    row("rfc4475/trws.dat", Must::Answer(400)),
    row("rfc4475/escruri.dat", Must::Answer(400)),
    // Date is not the edge's to read.
    row("rfc4475/baddate.dat", Must::Forward(1)),
    row("rfc4475/regbadct.dat", Must::Answer(400)),
    row("rfc4475/badaspec.dat", Must::Answer(400)),
    row("rfc4475/baddn.dat", Must::Answer(400)),
    row("rfc4475/badvers.dat", Must::Answer(505)),
    row("rfc4475/mismatch01.dat", Must::Answer(400)),
    row("rfc4475/mismatch02.dat", Must::Answer(400)),
    row("rfc4475/bigcode.dat", Must::Discard(Drop::StatusInvalid)),
    // §3.2: a branch that says nothing; other fields tell its transaction from others.
    row("rfc4475/badbranch.dat", Must::Forward(1)),
    // §3.3: lawful for the parser, and not for who acts on it.
    row("rfc4475/insuf.dat", Must::Answer(400)),
    row("rfc4475/unkscm.dat", Must::Answer(416)),
    row("rfc4475/novelsc.dat", Must::Answer(416)),
    // It is read well, but From names no domain, so nobody may send it from outside.
    row("rfc4475/unksm2.dat", Must::Answer(403)),
    row("rfc4475/bext01.dat", Must::Answer(420)),
    row("rfc4475/invut.dat", Must::Forward(1)),
    row("rfc4475/regaut01.dat", Must::Forward(1)),
    row("rfc4475/multi01.dat", Must::Answer(400)),
    row(
        "rfc4475/mcl01.dat",
        Must::AnswerAndClose(400, "content_length_invalid"),
    ),
    // A response goes where our branch says, never where a Via points to; here none of ours is on top.
    row("rfc4475/bcast.dat", Must::DiscardUnasked),
    row("rfc4475/zeromf.dat", Must::Answer(483)),
    row("rfc4475/cparam01.dat", Must::Forward(1)),
    row("rfc4475/cparam02.dat", Must::Forward(1)),
    row("rfc4475/regescrt.dat", Must::Forward(1)),
    row("rfc4475/sdp01.dat", Must::Forward(1)),
    // §3.4: without a Content-Length a stream has no second message (RFC 3261 §18.3).
    row(
        "rfc4475/inv2543.dat",
        Must::AnswerAndClose(400, "content_length_missing"),
    ),
    // It came with the others and no paper describes it. A line without a colon leaves headers uncertain,
    // and there is no Via that an answer could go by.
    row(
        "rfc4475/extra-test.dat",
        Must::Close("header_without_colon"),
    ),
    // RFC 5118 §4. Request-URIs with addresses are the next hop's to judge.
    row("rfc5118/ipv6-good.dat", Must::Forward(1)),
    row("rfc5118/ipv6-bad.dat", Must::Answer(400)),
    row("rfc5118/port-ambiguous.dat", Must::Forward(1)),
    row("rfc5118/port-unambiguous.dat", Must::Forward(1)),
    row(
        "rfc5118/via-received-param-with-delim.dat",
        Must::Forward(1),
    ),
    row("rfc5118/via-received-param-no-delim.dat", Must::Forward(1)),
    row("rfc5118/ipv6-in-sdp.dat", Must::Forward(1)),
    row("rfc5118/mult-ip-in-header.dat", Must::Forward(1)),
    row("rfc5118/mult-ip-in-sdp.dat", Must::Forward(1)),
    row("rfc5118/ipv4-mapped-ipv6.dat", Must::Forward(1)),
    row("rfc5118/ipv6-correct-abnf-2-colons.dat", Must::Forward(1)),
    // Borne with on the way inside; that it leads nowhere is tested beside the proxy.
    row("rfc5118/ipv6-bug-abnf-3-colons.dat", Must::Forward(1)),
];
