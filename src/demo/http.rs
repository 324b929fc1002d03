//! HTTP/1.1 as far as a server of three pages needs it (RFC 9112): request heads in, responses out. Pure; the sockets are elsewhere.

/// The largest request head that is read.
pub(super) const MOST_HEAD_BYTES: usize = 8 * 1024;
const MOST_HEADERS: usize = 64;
const MOST_TARGET_BYTES: usize = 2 * 1024;

/// A request's head, as far as it matters here. There is no body: a request that has one is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// `GET` or `HEAD`; others have been refused by then.
    pub(super) is_head: bool,
    /// The path without the query.
    pub(super) path: String,
    /// The client wants, and its version allows, another request on this connection.
    pub(super) keep_alive: bool,
}

/// What is in the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Not yet a whole head.
    Partial,
    /// A request and how many bytes it took.
    Whole(Request, usize),
    /// No request that we understand; the connection ends after the answer.
    Refused(Refusal),
}

/// Status code, reason phrase, and the explanation for the body.
pub(super) type Refusal = (u16, &'static str);

/// Looks for one request at the buffer's beginning.
pub(super) fn parse(buffer: &[u8]) -> Parsed {
    // RFC 9112 2.2: an empty line before the request line is to be ignored.
    let skipped = buffer.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count().min(4);
    let data = &buffer[skipped..];
    let Some(end) = find_end(data) else {
        return if buffer.len() < MOST_HEAD_BYTES {
            early_refusal(data)
        } else {
            Parsed::Refused((431, "the request's head is larger than 8 KiB"))
        };
    };
    if skipped + end > MOST_HEAD_BYTES {
        return Parsed::Refused((431, "the request's head is larger than 8 KiB"));
    }
    match head(&data[..end]) {
        Ok(request) => Parsed::Whole(request, skipped + end),
        Err(refusal) => Parsed::Refused(refusal),
    }
}

/// The length of the head with its empty line. Lines end in CRLF; a bare LF is taken too (RFC 9112 2.2).
fn find_end(data: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    for (at, byte) in data.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, byte)| (at, *byte)) {
        debug_assert_eq!(byte, b'\n');
        if matches!(&data[line_start..at], b"" | b"\r") {
            return Some(at + 1);
        }
        line_start = at + 1;
    }
    None
}

/// Garbage (a TLS hello, a port scanner's bytes) isn't worth waiting for.
fn early_refusal(data: &[u8]) -> Parsed {
    let method = data.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    match data.get(method) {
        None if method <= 16 => Parsed::Partial,
        Some(b' ') if method > 0 => Parsed::Partial,
        _ => Parsed::Refused((400, "this is no HTTP request")),
    }
}

fn head(data: &[u8]) -> Result<Request, Refusal> {
    let text = std::str::from_utf8(data).map_err(|_| (400, "the request's head is not text"))?;
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err((400, "the request line is not `METHOD TARGET HTTP/1.1`"));
    };
    let minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        other if other.starts_with("HTTP/") => {
            return Err((505, "only HTTP/1.0 and 1.1 are spoken here"));
        }
        _ => return Err((400, "the request line does not end in a version")),
    };
    if !method.bytes().all(|byte| byte.is_ascii_uppercase()) || method.is_empty() {
        return Err((400, "this is no HTTP method"));
    }
    if target.len() > MOST_TARGET_BYTES {
        return Err((414, "the address is longer than 2 KiB"));
    }
    let path = path(target)?;
    let mut keep_alive = minor == 1;
    let (mut hosts, mut has_body) = (0, false);
    for (count, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
        if count >= MOST_HEADERS {
            return Err((431, "more than 64 headers"));
        }
        let (name, value) = line.split_once(':').ok_or((400, "a header has no colon"))?;
        // Also refuses a folded line and a blank before the colon, both of which have been used to smuggle requests.
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
        {
            return Err((400, "a header's name has forbidden characters"));
        }
        if value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
            return Err((400, "a header's value has control characters"));
        }
        let value = value.trim_matches([' ', '\t']);
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "connection" => {
                for word in value.split(',').map(str::trim) {
                    if word.eq_ignore_ascii_case("close") {
                        keep_alive = false;
                    } else if word.eq_ignore_ascii_case("keep-alive") && minor == 0 {
                        keep_alive = true;
                    }
                }
            }
            "content-length" => has_body |= value != "0",
            "transfer-encoding" => has_body = true,
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && minor == 1) {
        return Err((400, "HTTP/1.1 wants exactly one Host header"));
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err((405, "only GET and HEAD are allowed"));
    }
    if has_body {
        return Err((413, "requests with a body are not taken"));
    }
    Ok(Request { is_head: method == "HEAD", path, keep_alive })
}

/// The path of an origin-form (`/x?y`) or absolute-form (`http://host/x`) target.
fn path(target: &str) -> Result<String, Refusal> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err((400, "the address has characters that must be percent-encoded"));
    }
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None if target.starts_with('/') => target,
        None => return Err((400, "the address does not begin with a slash")),
    };
    Ok(path.split(['?', '#']).next().unwrap_or_default().to_string())
}

/// A response to be sent.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

impl Response {
    /// The bytes on the wire. `date` is an IMF-fixdate.
    pub(super) fn bytes(&self, is_head: bool, keep_alive: bool, date: &str) -> Vec<u8> {
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nDate: {date}\r\nServer: minidock\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len(),
        );
        if self.status == 405 {
            out.push_str("Allow: GET, HEAD\r\n");
        }
        out.push_str(if keep_alive { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
        let mut out = out.into_bytes();
        if !is_head {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Bad Request",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Whole(request, used) => {
                assert_eq!(used, text.len());
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn refused(text: &[u8]) -> u16 {
        match parse(text) {
            Parsed::Refused((status, _)) => status,
            other => panic!("{:?}: {other:?}", String::from_utf8_lossy(text)),
        }
    }

    #[test]
    fn requests_of_real_clients_are_understood() {
        let curl = whole(
            "GET /json?pretty=1 HTTP/1.1\r\nHost: 127.0.0.1:10080\r\nUser-Agent: curl/7.88\r\nAccept: */*\r\n\r\n",
        );
        assert_eq!(curl, Request { is_head: false, path: "/json".into(), keep_alive: true });
        assert!(!whole("GET / HTTP/1.1\r\nhost:x\r\nConnection: Upgrade, Close\r\n\r\n").keep_alive);
        assert!(!whole("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(whole("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
        assert!(whole("HEAD / HTTP/1.1\nHost: typed.by.hand\n\n").is_head);
        assert_eq!(whole("\r\nGET http://proxy.example/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").path, "/x");
        assert_eq!(whole("GET http://proxy.example HTTP/1.1\r\nHost: a\r\n\r\n").path, "/");
    }

    #[test]
    fn a_request_may_come_in_any_pieces_and_the_next_one_right_behind_it() {
        let text = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(parse(&text[..length]), Parsed::Partial, "{length} bytes");
        }
        let two = [&text[..], b"GET /b HTTP/1.1\r\n"].concat();
        assert!(matches!(parse(&two), Parsed::Whole(request, used) if request.path == "/a" && used == text.len()));
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_right_status() {
        for (text, status) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00"[..], 400),
            (b"hello\r\n\r\n", 400),
            (b"GET /\r\n\r\n", 400),
            (b"GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
            (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET relative HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET /\x07 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 405),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 413),
            (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        ] {
            assert_eq!(refused(text), status, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn heads_are_bounded_in_every_dimension() {
        let long = "a".repeat(3000);
        assert_eq!(refused(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()), 414);
        assert_eq!(refused(format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(65)).as_bytes()), 431);
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(MOST_HEAD_BYTES));
        assert_eq!(refused(endless.as_bytes()), 431);
        assert_eq!(refused(&[b'A'; 17]), 400);
    }

    #[test]
    fn a_head_response_has_the_length_but_not_the_body() {
        let response = Response { status: 200, content_type: "text/plain", body: b"hello".to_vec() };
        let text = String::from_utf8(response.bytes(true, true, "Mon, 23 Nov 2026 12:00:00 GMT")).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\n"), "{text}");
        assert!(text.contains("Content-Length: 5\r\n") && text.ends_with("Connection: keep-alive\r\n\r\n"), "{text}");
        let text = String::from_utf8(response.bytes(false, false, "")).unwrap();
        assert!(text.ends_with("Connection: close\r\n\r\nhello"), "{text}");
    }
}
