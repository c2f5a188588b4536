//! Requests of plugins to other servers.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sluice_runtime::ports::{Http, HttpRequest, HttpResponse, PortError};
use ureq::{
    AsSendBody, Body,
    http::{Request, Response},
    tls::{RootCerts, TlsConfig},
};

/// Connections that are kept for the next request: of all servers, and of one.
const IDLE: (usize, usize) = (64, 8);

/// The connections of all plugins. Cloning gives another handle.
#[derive(Clone)]
pub struct Agent(ureq::Agent);

impl Agent {
    /// Follows no redirect, goes through no proxy, keeps no cookies, and trusts what the operating system trusts.
    pub fn new() -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_response_header_size(2 * HttpResponse::MAX_HEADER_BYTES)
            .max_idle_connections(IDLE.0)
            .max_idle_connections_per_host(IDLE.1)
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(config.into())
    }
}

/// The requests of one place's plugins.
pub struct Requests {
    agent: Agent,
    stopping: Arc<AtomicBool>,
}

impl Requests {
    pub fn new(agent: Agent, stopping: Arc<AtomicBool>) -> Self {
        Self { agent, stopping }
    }

    fn run(&self, request: Request<impl AsSendBody>, within: Duration) -> Result<HttpResponse, String> {
        let request = self.agent.0.configure_request(request).timeout_global(Some(within)).build();
        read(self.agent.0.run(request).map_err(|error| said(&error, within))?)
            .map_err(|error| error.map_or_else(too_large, |error| said(&error, within)))
    }
}

impl Http for Requests {
    fn send(&self, request: &HttpRequest, within: Duration) -> Result<HttpResponse, PortError> {
        let stopping = || self.stopping.load(Ordering::Acquire);
        let not_now = || PortError::Busy("the plugins here are being stopped".to_owned());
        if stopping() {
            return Err(not_now());
        }
        let HttpRequest { method, url, headers, body } = request;
        let builder = Request::builder().method(method.as_str()).uri(url.as_str());
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value));
        let bodiless = body.is_empty() && matches!(method.as_str(), "GET" | "HEAD" | "DELETE");
        let answered = if bodiless {
            builder.body(()).map_err(|error| error.to_string()).and_then(|request| self.run(request, within))
        } else {
            let request = builder.body(body.as_slice()).map_err(|error| error.to_string());
            request.and_then(|request| self.run(request, within))
        };
        // Whoever stops the plugins wants them to be asked again, not to fail for that.
        answered.map_err(|text| if stopping() { not_now() } else { PortError::Failed(text) })
    }
}

/// The answer, if it is no larger than it may be; no more of it is read than that. `None`: it is larger.
fn read(response: Response<Body>) -> Result<HttpResponse, Option<ureq::Error>> {
    let (parts, body) = response.into_parts();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let pairs = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())));
    let headers: Vec<(String, String)> = pairs.collect();
    let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > HttpResponse::MAX_HEADERS || size > HttpResponse::MAX_HEADER_BYTES {
        return Err(None);
    }
    let mut bytes = Vec::new();
    let most = HttpResponse::MAX_BODY as u64 + 1;
    body.into_reader().take(most).read_to_end(&mut bytes).map_err(|error| Some(error.into()))?;
    if bytes.len() > HttpResponse::MAX_BODY {
        return Err(None);
    }
    Ok(HttpResponse { status: parts.status.as_u16(), headers, body: bytes })
}

fn too_large() -> String {
    let (count, bytes, body) = (HttpResponse::MAX_HEADERS, HttpResponse::MAX_HEADER_BYTES, HttpResponse::MAX_BODY);
    format!("the answer has more than {count} headers, {bytes} bytes of them, or {body} bytes of a body")
}

fn said(error: &ureq::Error, within: Duration) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no whole answer within {} ms", within.as_millis()),
        ureq::Error::LargeResponseHeader(..) => too_large(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::{TcpListener, TcpStream},
        time::Instant,
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    /// A server that reads the head of each request and hands the connection to `answer`.
    fn server(answer: impl Fn(&str, TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
                answer(&head, stream);
            }
        });
        url
    }

    /// A server that answers these bytes.
    fn says(bytes: impl Into<Vec<u8>>) -> String {
        let bytes = bytes.into();
        // Whoever has read enough closes the connection.
        server(move |_, mut stream| drop(stream.write_all(&bytes)))
    }

    fn ask(url: &str, within: Duration) -> Result<HttpResponse, PortError> {
        let request = HttpRequest { method: "GET".into(), url: url.into(), ..HttpRequest::default() };
        Requests::new(Agent::new(), Arc::default()).send(&request, within)
    }

    fn refused(url: &str, within: Duration) -> String {
        let start = Instant::now();
        let text = ask(url, within).unwrap_err().to_string();
        assert!(start.elapsed() < LONG, "{text}: {:?}", start.elapsed());
        text
    }

    #[test]
    fn an_answer_of_any_status_is_given_as_it_is() {
        let url = says("HTTP/1.1 404 No\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhello");
        let answer = ask(&url, LONG).unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (404, &b"hello"[..]));
        assert_eq!(answer.headers[0], ("x-one".to_owned(), "1".to_owned()));
        let chunked = says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(ask(&chunked, LONG).unwrap().body, b"abc");
    }

    #[test]
    fn a_redirect_is_an_answer() {
        let url = says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
        let answer = ask(&url, LONG).unwrap();
        assert_eq!(answer.status, 302);
        assert!(answer.headers.contains(&("location".to_owned(), "http://127.0.0.1:1/".to_owned())));
    }

    #[test]
    fn what_is_sent_is_what_was_given() {
        let url = server(|head, mut stream| {
            let head = head.to_ascii_lowercase();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let headers = vec![("x-one".to_owned(), "1".to_owned())];
        let request =
            HttpRequest { method: "POST".into(), url: format!("{url}a?b=c"), headers, body: b"body".to_vec() };
        let requests = Requests::new(Agent::new(), Arc::default());
        let head = String::from_utf8(requests.send(&request, LONG).unwrap().body).unwrap();
        assert!(head.starts_with("post /a?b=c http/1.1\r\n"), "{head}");
        for line in ["x-one: 1\r\n", "content-length: 4\r\n", "user-agent: sluice/"] {
            assert!(head.contains(line), "{line} in {head}");
        }
        let headers = vec![("x-one".to_owned(), "1\r\nx-two: 2".to_owned())];
        let odd = requests.send(&HttpRequest { headers, ..request }, LONG).unwrap_err();
        assert!(matches!(odd, PortError::Failed(_)), "{odd}");
    }

    #[test]
    fn a_server_that_does_not_end_does_not_hold_up() {
        let silent = server(|_, stream| std::mem::forget(stream));
        assert_eq!(refused(&silent, SOON), "no whole answer within 300 ms");
        let trickle = server(|_, mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
            std::thread::spawn(move || {
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        });
        assert_eq!(refused(&trickle, SOON), "no whole answer within 300 ms");
        let slow_head = server(|_, mut stream| {
            std::thread::spawn(move || {
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        });
        refused(&slow_head, SOON);
    }

    #[test]
    fn an_answer_that_is_too_large_is_not_read() {
        let endless = |begin: &'static [u8], more: &'static [u8]| {
            server(move |_, mut stream| {
                let _ = stream.write_all(begin);
                while stream.write_all(more).is_ok() {}
            })
        };
        let body = endless(b"HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 4096]);
        assert!(refused(&body, LONG).contains("bytes of a body"));
        let headers = endless(b"HTTP/1.1 200 OK\r\nx: ", &[b'x'; 4096]);
        assert_ne!(refused(&headers, LONG), "no whole answer within 20000 ms");
        let many: String = (0..100).map(|n| format!("x-{n}: 1\r\n")).collect();
        let text = refused(&says(format!("HTTP/1.1 200 OK\r\n{many}\r\n")), LONG);
        assert!(text.contains("more than 64 headers"), "{text}");
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(20_000));
        assert!(refused(&says(long), LONG).contains("16384 bytes of them"));
        let lies = says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        assert_ne!(refused(&lies, LONG), "no whole answer within 20000 ms");
    }

    #[test]
    fn who_is_stopped_is_asked_again_later() {
        let stopping = Arc::new(AtomicBool::new(false));
        let its = stopping.clone();
        let url = server(move |_, stream| {
            its.store(true, Ordering::Release);
            drop(stream);
        });
        let request = HttpRequest { method: "GET".into(), url, ..HttpRequest::default() };
        let requests = Requests::new(Agent::new(), stopping);
        for _ in 0..2 {
            assert!(matches!(requests.send(&request, LONG), Err(PortError::Busy(_))));
        }
    }

    #[test]
    fn who_is_not_there_is_named_so() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = refused(&format!("http://{gone}/"), LONG);
        assert!(text.contains("refused"), "{text}");
    }
}
