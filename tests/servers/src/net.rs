//! Free ports, and the few bytes of each protocol that tell whether a server answers.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

/// Below the range from which Linux takes ports for outgoing connections, so that none of those
/// can take a port between its choice here and its use.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A port of the loopback interface that nothing listens on. No port is given twice.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run at the same time start at different places.
    let start = (std::process::id().wrapping_mul(61) % u32::from(PORTS)) as u16;
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        let port = FIRST_PORT + (start + step) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Whether a GET of the path is answered with status 200.
pub fn http_ok(port: u16, path: &str) -> bool {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
    let mut status_line = [0; 12];
    exchange(port, request.as_bytes(), &mut status_line).is_ok() && &status_line == b"HTTP/1.1 200"
}

/// Sends the request and fills the answer's first bytes.
pub(crate) fn exchange(port: u16, request: &[u8], answer: &mut [u8]) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.set_write_timeout(Some(PROBE_TIMEOUT))?;
    stream.write_all(request)?;
    stream.read_exact(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_never_given_twice() {
        let ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ports.len());
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn only_a_200_counts_as_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 16];
                stream.read_exact(&mut request).unwrap();
                assert!(request.starts_with(b"GET /readyz HTTP"), "{request:?}");
                // In one piece: whoever asks hangs up after the status, and a second piece might
                // find nobody there.
                let answer = format!("HTTP/1.1 {status}\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert!(http_ok(port, "/readyz"));
        assert!(!http_ok(port, "/readyz"));
        server.join().unwrap();
        assert!(!http_ok(port, "/readyz"), "nobody listens any more");
    }
}
