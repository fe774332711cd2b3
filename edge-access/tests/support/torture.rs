//! Odd and wrong messages of our own, one for every case of RFC 4475 and RFC 5118 and some more, with what the
//! edge must do with each. They are read by the tests of the proxy and by those of the real daemon.
//!
//! A message is written with plain line ends; `#` after `Content-Length:` stands for the length of its body. In a
//! response the line `Via: @` stands for the Vias of a request that came by before.

/// One message.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) sender: Sender,
    pub(crate) must: Must,
    pub(crate) bytes: Vec<u8>,
}

/// Who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A client that the inside has accepted.
    User,
    /// One that it has not.
    Stranger,
    /// A partner's edge that proves `fabrikam.test`.
    Partner,
    /// The Director, whose request of the user is open.
    Director,
}

/// What the edge does with it; reasons are the labels of its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// So many messages go on, to the Director or back to the client.
    Forward(usize),
    /// So many go on, then the connection is closed for that reason.
    ForwardAndClose(usize, &'static str),
    /// It is refused for that reason, and the connection goes on.
    Answer(u16, &'static str),
    /// It is refused, and the connection is closed for the second reason.
    AnswerAndClose(u16, &'static str, &'static str),
    /// The connection is closed for that reason without a word.
    Close(&'static str),
    /// It is thrown away for that reason.
    Drop(&'static str),
    /// More has to come.
    Wait,
}

/// The bytes of a message.
pub(crate) fn bytes(text: &str, body: &[u8]) -> Vec<u8> {
    let head = text.replace('\n', "\r\n").replace(
        "Content-Length: #",
        &format!("Content-Length: {}", body.len()),
    );
    [head.as_bytes(), b"\r\n", body].concat()
}

/// A MESSAGE of Alice's; lines of `more` take the place of the usual ones of that name.
pub(crate) fn usual(start: &str, more: &str) -> String {
    let method = start.split(' ').next().unwrap_or_default();
    let usual = format!(
        "Via: SIP/2.0/TLS 10.1.0.10:5061;branch=z9hG4bKown\nMax-Forwards: 70\n\
         From: <sip:alice@contoso.test>;tag=a1;epid=0123456789\nTo: <sip:bob@contoso.test>\n\
         Call-ID: own\nCSeq: 1 {method}\nContent-Length: #\n"
    );
    let name = |line: &str| line.split([':', ' ']).next().unwrap_or_default().to_owned();
    let kept: String = usual
        .split_inclusive('\n')
        .filter(|line| !more.split('\n').any(|given| name(given) == name(line)))
        .collect();
    format!("{start}\n{kept}{more}")
}

pub(crate) const M: &str = "MESSAGE sip:bob@contoso.test SIP/2.0";
pub(crate) const PARTNER: &str = "From: <sip:carol@fabrikam.test>;tag=c1\n";

pub(crate) fn message(more: &str) -> Vec<u8> {
    bytes(&usual(M, more), b"")
}

pub(crate) fn line(start: &str) -> Vec<u8> {
    bytes(&usual(start, ""), b"")
}

pub(crate) fn answer(status: &str, more: &str) -> Vec<u8> {
    let text = format!(
        "SIP/2.0 {status}\nVia: @\nFrom: <sip:alice@contoso.test>;tag=a1\nTo: <sip:bob@contoso.test>;tag=b1\n\
         Call-ID: own\nContent-Length: #\n{more}"
    );
    bytes(&text, b"")
}

/// Every case, given to `$each` as `name: sender, must, bytes;`.
macro_rules! torture_cases {
    ($each:ident) => { $each! {
        // RFC 4475 §3.1.1: lawful, however odd.
        wsinv: User, Forward(1), bytes("INVITE sip:v%69de.%6fo@contoso.test;unknown SIP/2.0\nTO :\n sip:bob@contoso.test ;   tag    = 19x\nFrom   : \"A \\\\\\\"\"       <sip:alice@contoso.test>\n  ;\n  tag = 98\nMaX-fOrWaRdS: 0068\nCall-ID: ws.own\nContent-Length   : 2\ncseq: 0009\n  INVITE\nVia  : SIP  /   2.0\n /TLS\n    10.1.0.10;branch=390own\ns :\nNewField: new\n data here\nUnknown: ;;,,;;,;\nContent-Type: application/sdp\nRoute:\n <sip:next.test;lr;unknown=x>\nv:  SIP  / 2.0  / TCP     a.test   ;\n  branch  =   z9hG4bK9 ,\n SIP  /    2.0   / UDP  192.168.255.111   ; branch=\n z9hG4bK30\nm:\"Quoted \\\"\\\"\" <sip:a@contoso.test> ; newparam = n ;\n  secondparam ; q = 0.33\n", b"ab");
        intmeth: User, Forward(1), bytes(&usual("!int-Meth0d.%*_+`'~ sip:1_%20-:&it+$,/;;*@contoso.test SIP/2.0", "To: \"BEL:\\\x07 NUL:\\\0 DEL:\\\x7f\" <sip:bob@contoso.test>\n*!_+~: value\n"), b"");
        esc01: User, Forward(1), message("Contact: <sip:c%61ll%65r@10.1.0.10;%6C%72;n%61me=v%61lue%25%34%31>\n");
        escnull: User, Forward(1), bytes(&usual("REGISTER sip:contoso.test SIP/2.0", "Contact: <sip:%00@10.1.0.10>\nContact: <sip:%00%00@10.1.0.10>\n"), b"");
        esc02: User, Forward(1), bytes(&usual("RE%47IST%45R sip:registrar.contoso.test SIP/2.0", "Contact: <sip:a%6c@10.1.0.10>\n"), b"");
        lwsdisp: User, Forward(1), message("From: alice<sip:alice@contoso.test>;tag=323\n");
        longreq: User, Forward(1), message(&format!("Subject: {}\nVia: {}\n", "long ".repeat(600), vec!["SIP/2.0/TLS a.test;branch=z9hG4bKx"; 34].join(",\n  ")));
        dblreq: User, ForwardAndClose(2, "content_length_missing"), [message("Call-ID: first\n"), bytes(&usual("INVITE sip:bob@contoso.test SIP/2.0", "Call-ID: second\n"), b"v=0\r\n"), b"OPTIONS sip:a SIP/2.0\r\n\r\n".to_vec()].concat();
        semiuri: User, Forward(1), line("OPTIONS sip:user;par=u%40example.net@contoso.test SIP/2.0");
        transports: User, Forward(1), message("Via: SIP/2.0/TLS a.test;branch=z9hG4bK1, SIP/2.0/UNKNOWN b.test;branch=z9hG4bK2, SIP/2.0/SCTP c.test;branch=z9hG4bK3\n");
        mpart01: User, Forward(1), bytes(&usual(M, "Content-Type: multipart/mixed;boundary=x\n"), b"--x\r\n\r\n\0\n\r\0\xff\xfe binary\n\r\n--x--\r\n");
        unreason: Director, Forward(1), answer("200 = 2**3 * 5**2 \u{43d}\u{43e}", "CSeq: 1 MESSAGE\n");
        noreason: Director, Forward(1), answer("200 ", "CSeq: 1 MESSAGE\n");
        // §3.1.2: not lawful.
        badinv01: User, Answer(400, "malformed"), message("Contact: \"Joe\" <sip:joe@10.1.0.10>;;;;\n");
        clerr: User, Wait, bytes(&usual(M, "Content-Length: 9999\n"), b"short");
        ncl: User, AnswerAndClose(400, "malformed", "content_length_invalid"), message("Content-Length: -999\n");
        scalar02: User, Answer(400, "malformed"), message("CSeq: 36893488147419103232 MESSAGE\nMax-Forwards: 300\nExpires: 10000000000000000000000000000000\n");
        scalarlg: Director, Drop("response_malformed"), answer("503 Service Unavailable", "CSeq: 9292394834772304023312 MESSAGE\nRetry-After: 949302838503028349304023988\n");
        quotbal: User, Answer(400, "malformed"), message("To: \"Mr. Bob <sip:bob@contoso.test>\n");
        ltgtruri: User, Answer(400, "malformed"), line("MESSAGE <sip:bob@contoso.test> SIP/2.0");
        lwsruri: User, Answer(400, "malformed"), line("MESSAGE sip:bob@contoso.test; lr SIP/2.0");
        lwsstart: User, Answer(400, "malformed"), line("MESSAGE  sip:bob@contoso.test  SIP/2.0");
        trws: User, Answer(400, "malformed"), line("MESSAGE sip:bob@contoso.test SIP/2.0  ");
        escruri: User, Answer(400, "malformed"), line("MESSAGE sip:bob@contoso.test?Route=%3Csip:evil.test%3E SIP/2.0");
        baddate: User, Forward(1), message("Date: Fri, 01 Jan 2010 16:00:00 EST\n");
        regbadct: User, Answer(400, "malformed"), bytes(&usual("REGISTER sip:contoso.test SIP/2.0", "Contact: sip:alice@10.1.0.10?Route=%3Csip:s.test%3E\n"), b"");
        badaspec: User, Answer(400, "malformed"), message("To: \"Watson, Thomas\" < sip:bob@contoso.test >\n");
        baddn: User, Answer(400, "malformed"), message("From: Bell, Alexander <sip:alice@contoso.test>;tag=43\n");
        badvers: User, Answer(505, "version"), line("MESSAGE sip:bob@contoso.test SIP/7.0");
        mismatch01: User, Answer(400, "cseq_mismatch"), message("CSeq: 8 INVITE\n");
        mismatch02: User, Answer(400, "cseq_mismatch"), bytes(&usual("NEWMETHOD sip:bob@contoso.test SIP/2.0", "CSeq: 8 INVITE\n"), b"");
        bigcode: Director, Drop("status_invalid"), answer("4294967301 better not break the receiver", "CSeq: 1 MESSAGE\n");
        // §3.2 to §3.4.
        badbranch: User, Forward(1), message("Via: SIP/2.0/TLS 10.1.0.10;branch=z9hG4bK\n");
        insuf: User, Answer(400, "header_missing"), bytes("MESSAGE sip:bob@contoso.test SIP/2.0\nVia: SIP/2.0/TLS 10.1.0.10;branch=z9hG4bKi\nCSeq: 1 MESSAGE\nContent-Length: 0\n", b"");
        unkscm: User, Answer(416, "scheme"), line("MESSAGE nobodyKnowsThisScheme:totallyopaquecontent SIP/2.0");
        novelsc: User, Answer(416, "scheme"), line("MESSAGE soap.beep://192.0.2.103:3002 SIP/2.0");
        unksm2: User, Answer(403, "from_not_remote"), bytes(&usual("REGISTER sip:contoso.test SIP/2.0", "From: <http://www.contoso.test>;tag=3\nTo: isbn:2983792873\nContact: <name:John_Smith>\n"), b"");
        bext01: User, Answer(420, "extension"), message("Proxy-Require: nothing-we-know, nor-this\nRequire: not-ours-to-judge\n");
        invut: User, Forward(1), bytes(&usual("INVITE sip:bob@contoso.test SIP/2.0", "Content-Type: application/unknownformat\n"), b"<audio>\r\n");
        regaut01: User, Forward(1), bytes(&usual("REGISTER sip:contoso.test SIP/2.0", "Authorization: NoOneKnowsThisScheme opaque-data=here\n"), b"");
        multi01: User, Answer(400, "header_repeated"), message("CSeq: 59 MESSAGE\nCall-ID: one\nCSeq: 8 MESSAGE\nCall-ID: two\n");
        mcl01: User, AnswerAndClose(400, "malformed", "content_length_invalid"), bytes(&usual(M, "Content-Length: 13\nl: 5\n"), b"thirteen is 13");
        bcast: Director, Drop("response_unknown"), bytes("SIP/2.0 200 OK\nVia: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1\nVia: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK2\nFrom: <sip:a@contoso.test>;tag=1\nTo: <sip:b@contoso.test>;tag=2\nCall-ID: b\nCSeq: 1 MESSAGE\nContent-Length: 0\n", b"");
        zeromf: User, Answer(483, "too_many_hops"), message("Max-Forwards: 0\n");
        cparam01: User, Forward(1), bytes(&usual("REGISTER sip:contoso.test SIP/2.0", "Contact: sip:+15550100@10.1.0.10;unknownparam\n"), b"");
        cparam02: User, Forward(1), bytes(&usual("REGISTER sip:contoso.test SIP/2.0", "Contact: <sip:+15550100@10.1.0.10;unknownparam>\n"), b"");
        regescrt: User, Forward(1), bytes(&usual("REGISTER sip:contoso.test SIP/2.0", "Contact: <sip:alice@10.1.0.10?Route=%3Csip:s.test%3E>\n"), b"");
        sdp01: User, Forward(1), bytes(&usual("INVITE sip:bob@contoso.test SIP/2.0", "Accept: text/nobodyKnowsThis\nContent-Type: application/sdp\n"), b"v=0\r\n");
        inv2543: User, AnswerAndClose(400, "header_missing", "content_length_missing"), bytes("INVITE sip:bob@contoso.test SIP/2.0\nVia: SIP/2.0/TLS 10.1.0.10\nFrom: <sip:alice@contoso.test>\nTo: <sip:bob@contoso.test>\nCall-ID: old\nCSeq: 1 INVITE\n", b"");
        extra_test: User, Close("header_without_colon"), bytes("INVITE sip:bob@contoso.test\nto the happy one\nContent-Length: 0\n", b"");
        // RFC 5118 §4.
        ipv6_good: User, Forward(1), bytes(&usual("REGISTER sip:[2001:db8::10] SIP/2.0", "Via: SIP/2.0/TLS [2001:db8::9:1];branch=z9hG4bKas3\nContact: \"A\" <sip:alice@[2001:db8::1]>\n"), b"");
        ipv6_bad: User, Answer(400, "malformed"), line("REGISTER sip:2001:db8::10 SIP/2.0");
        port_ambiguous: User, Forward(1), line("REGISTER sip:[2001:db8::10:5070] SIP/2.0");
        port_unambiguous: User, Forward(1), line("REGISTER sip:[2001:db8::10]:5070 SIP/2.0");
        received_with_brackets: User, Forward(1), message("Via: SIP/2.0/TLS [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3\n");
        received_without_brackets: User, Forward(1), message("Via: SIP/2.0/TLS [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3\n");
        ipv6_in_sdp: User, Forward(1), bytes(&usual("INVITE sip:bob@[2001:db8::10] SIP/2.0", "Content-Type: application/sdp\n"), b"c=IN IP6 2001:db8::20\r\n");
        many_addresses_in_header: User, Forward(1), bytes(&usual("BYE sip:bob@[2001:db8::10] SIP/2.0", "Via: SIP/2.0/TLS [2001:db8::9:1]:6050;branch=z9hG4bKas3\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjh\n"), b"");
        many_addresses_in_sdp: User, Forward(1), bytes(&usual("INVITE sip:bob@[2001:db8::10] SIP/2.0", "Content-Type: application/sdp\n"), b"c=IN IP4 192.0.2.1\r\nc=IN IP6 2001:db8::1\r\n");
        ipv4_mapped: User, Forward(1), message("Contact: <sip:alice@[::ffff:192.0.2.10]>\nVia: SIP/2.0/TLS [::ffff:192.0.2.10]:19823;branch=z9hG4bKb\n");
        two_colons: User, Forward(1), line("OPTIONS sip:bob@[2001:db8::192.0.2.1] SIP/2.0");
        three_colons: User, Forward(1), line("OPTIONS sip:bob@[2001:db8:::192.0.2.1] SIP/2.0");
        // What is not in the papers: framing.
        two_lengths_in_one_line: User, AnswerAndClose(400, "malformed", "content_length_invalid"), message("Content-Length: 0, 0\n");
        a_length_in_two_folds: User, AnswerAndClose(400, "malformed", "content_length_invalid"), message("Content-Length: 1\n 0\n");
        a_length_with_a_sign: User, AnswerAndClose(400, "malformed", "content_length_invalid"), message("Content-Length: +0\n");
        bare_line_feed: User, Close("bare_line_feed"), message("X-A: b\n").iter().copied().filter(|&b| b != b'\r').collect::<Vec<u8>>();
        one_bare_line_feed: User, AnswerAndClose(400, "malformed", "bare_line_feed"), String::from_utf8(message("X-A: b\n")).expect("text").replace("X-A: b\r\n", "X-A: b\n").into_bytes();
        bare_carriage_return: User, AnswerAndClose(400, "malformed", "bare_carriage_return"), message("X-A: b\rX-B: c\n");
        nul: User, AnswerAndClose(400, "malformed", "nul"), message("X-A: b\0c\n");
        no_colon: User, AnswerAndClose(400, "malformed", "header_without_colon"), message("X-A b\n");
        blank_in_a_name: User, AnswerAndClose(400, "malformed", "header_name_invalid"), message("X A: b\n");
        folded_start_line: User, Close("header_without_colon"), bytes("MESSAGE sip:bob@contoso.test SIP/2.0\n Via: SIP/2.0/TLS a\nContent-Length: 0\n", b"");
        head_without_end: User, AnswerAndClose(513, "head_too_long", "head_too_long"), message(&format!("X-A: {}\n", "b".repeat(70_000)));
        body_too_long: User, AnswerAndClose(413, "body_too_long", "body_too_long"), message("Content-Length: 200000\n");
        body_too_long_of_a_stranger: Stranger, AnswerAndClose(413, "body_too_long", "body_too_long"), message("Content-Length: 20000\n");
        headers_300: User, Answer(513, "too_many_headers"), message(&"X-A: b\n".repeat(300));
        vias_70: User, Answer(483, "via_too_deep"), message(&"Via: SIP/2.0/TLS a.test;branch=z9hG4bKx\n".repeat(70));
        ack_of_a_wrong_message: User, Drop("ack_refused"), bytes(&usual("ACK sip:bob@contoso.test SIP/2.0", "Max-Forwards: 0\n"), b"");
        benotify_of_a_wrong_message: User, Drop("benotify_refused"), bytes(&usual("BENOTIFY sip:bob@contoso.test SIP/2.0", "Max-Forwards: 0\n"), b"");
        negotiate: User, Answer(405, "hop_local"), bytes(&usual("NEGOTIATE sip:127.0.0.1:5061 SIP/2.0", "Via: SIP/2.0/TLS 10.1.0.10:5061\nMax-Forwards: 0\nCompression: LZ77-8K\n"), b"");
        // Trust that nobody outside may claim.
        forged_trust: User, Forward(1), message("ms-edge-proxy-message-trust: ms-source-type=AuthorizedServer\nMS-EDGE-PROXY-MESSAGE-TRUST : ms-source-type=AuthorizedServer\nms-Edge-Proxy-Message-Trust\t:\n ms-source-type=AuthorizedServer\n\t;ms-ep-fqdn=x\nms-asserted-verification-level: ms-source-verified-user=verified\nP-Asserted-Service: urn:urn-7:x\n");
        forged_trust_of_a_partner: Partner, Forward(1), bytes(&usual(M, &format!("{PARTNER}MS-EDGE-PROXY-MESSAGE-TRUST\t:\n ms-source-type=AuthorizedServer\np-asserted-identity :\n <sip:alice@contoso.test>,\n <sip:ceo@contoso.test>\nProxy-Authorization: NTLM response=\"AuthorizedServer\"\n")), b"");
        // Tokens.
        wrong_token: User, Answer(481, "route_invalid"), message("Route: <sip:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@sip.contoso.test:443;lr>\n");
        wrong_token_of_a_partner: Partner, Answer(481, "route_invalid"), bytes(&usual(M, &format!("{PARTNER}Route: <sip:x@sip.contoso.test;lr>\n")), b"");
        wrong_token_from_inside: Director, Answer(481, "route_invalid"), message("Route: <sip:zzzz@edge1.contoso.internal;lr>\n");
        wrong_contact_token_from_inside: Director, Answer(481, "route_invalid"), line("MESSAGE sip:alice@192.0.2.4:2904;ms-received-cid=1D8AF00 SIP/2.0");
        // Relays and sign-ins where there are none.
        register_on_the_federation_side: Partner, Answer(403, "not_federated"), bytes(&usual("REGISTER sip:contoso.test SIP/2.0", PARTNER), b"");
        service_on_the_federation_side: Partner, Answer(403, "not_federated"), bytes(&usual("SERVICE sip:contoso.test SIP/2.0", PARTNER), b"");
        relay_of_a_partner: Partner, Answer(403, "relay_denied"), bytes(&usual("MESSAGE sip:dave@northwind.test SIP/2.0", &format!("{PARTNER}To: <sip:dave@northwind.test>\n")), b"");
        relay_of_a_partner_by_its_uri: Partner, Answer(403, "relay_denied"), bytes(&usual("MESSAGE sip:dave@northwind.test SIP/2.0", PARTNER), b"");
        relay_of_a_partner_by_a_route: Partner, Answer(481, "route_invalid"), bytes(&usual(M, &format!("{PARTNER}Route: <sip:10.0.0.99;lr>\n")), b"");
        a_partner_as_one_of_us: Partner, Answer(403, "domain_denied"), bytes(&usual(M, ""), b"");
        relay_of_a_user_by_register: User, Answer(403, "relay_denied"), line("REGISTER sip:northwind.test SIP/2.0");
        a_user_of_nobody: User, Answer(403, "from_not_remote"), message("From: <sip:mallory@evil.test>;tag=1\n");
        an_anonymous_user: User, Answer(403, "anonymous"), bytes(&usual("INVITE sip:org@contoso.test;gruu;opaque=app:conf:focus:id:00 SIP/2.0", "From: <sip:x@anonymous.invalid>;tag=1\n"), b"");
        an_answer_of_a_client_that_was_not_asked: User, Drop("response_unknown"), bytes("SIP/2.0 200 OK\nVia: SIP/2.0/TLS sip.contoso.test:443;branch=z9hG4bKforged\nVia: SIP/2.0/TLS x\nFrom: <sip:a@contoso.test>;tag=1\nTo: <sip:b@contoso.test>;tag=2\nCall-ID: b\nCSeq: 1 MESSAGE\nContent-Length: 0\n", b"");
    } };
}
pub(crate) use torture_cases;
