use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;

fn guard(allowed: &[&str]) -> Guard {
    let allowed: Vec<String> = allowed.iter().map(|text| text.to_string()).collect();
    Guard::new(&allowed).unwrap()
}

/// What becomes of a URL: the code, or none.
fn checked(guard: &Guard, url: &str) -> Option<String> {
    guard
        .check(&url.parse().unwrap())
        .err()
        .map(|failure| failure.code)
}

#[test]
fn public_addresses_are_permitted_and_no_others() {
    let guard = guard(&[]);
    for public in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450:4001:80e::200e",
        "::ffff:1.1.1.1",
        // Where there is no IPv4, every host of it is reached so.
        "64:ff9b::1.1.1.1",
    ] {
        assert!(guard.permits(public.parse().unwrap()), "{public}");
    }
    for other in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "168.63.129.16",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::1.1.1.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1.1.1.1",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::1",
        "2002:101:101::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        assert!(!guard.permits(other.parse().unwrap()), "{other}");
    }
}

#[test]
fn what_the_operator_allows_is_permitted_in_all_its_forms() {
    let guard = guard(&["127.0.0.0/8", "10.1.2.3", "fd00:1::/32"]);
    for allowed in [
        "127.0.0.1",
        "::ffff:127.1.2.3",
        "64:ff9b::127.0.0.1",
        "10.1.2.3",
        "fd00:1:2::3",
        "1.1.1.1",
    ] {
        assert!(guard.permits(allowed.parse().unwrap()), "{allowed}");
    }
    for other in ["10.1.2.4", "::1", "fd00:2::1", "169.254.169.254"] {
        assert!(!guard.permits(other.parse().unwrap()), "{other}");
    }
}

#[test]
fn what_is_no_network_is_named() {
    for text in ["localhost", "10.0.0.0/33", "10.0.0/8", "", "::1/129"] {
        let error = Guard::new(&[text.to_owned()]).unwrap_err();
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
}

#[test]
fn an_address_in_a_url_is_found_however_it_is_written() {
    let guard = guard(&[]);
    for url in [
        "http://127.0.0.1/",
        "http://127.0.0.1./",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://0/",
        "http://%31%32%37.0.0.1/",
        "http://①②⑦.0.0.1/",
        "http://127。0。0。1/",
        "https://[::1]:8443/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
        "http://[64:ff9b::a00:1]/",
        "http://[fe80::1]/",
        "http://169.254.169.254/latest/meta-data/",
    ] {
        let code = checked(&guard, url);
        assert_eq!(code.as_deref(), Some("blocked_address"), "{url}");
    }
    for url in [
        "https://example.com/hook",
        "http://1.1.1.1:8080/",
        "https://[2606:4700:4700::1111]/",
    ] {
        assert_eq!(checked(&guard, url), None, "{url}");
    }
}

#[test]
fn only_http_without_a_user_is_a_users_url() {
    let guard = guard(&[]);
    for url in [
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "https://me@example.com/",
        "https://:secret@example.com/",
        "https://example.com@127.0.0.1/",
    ] {
        let code = checked(&guard, url);
        assert_eq!(code.as_deref(), Some("recipient_not_allowed"), "{url}");
    }
}

/// Answers as it is told, one answer for each time it is asked.
struct Told(Mutex<VecDeque<Vec<SocketAddr>>>);

impl Resolve for Told {
    fn resolve(&self, _name: Name) -> Resolving {
        let answer = self.0.lock().unwrap().pop_front();
        let answer = answer.expect("asked no more often than there are answers");
        Box::pin(async move { Ok(Box::new(answer.into_iter()) as Addrs) })
    }
}

fn deadlines() -> Deadlines {
    Deadlines {
        connect: Duration::from_secs(2),
        total: Duration::from_secs(5),
    }
}

/// Answers 200 to `times` connections, and closes each.
fn answering(listener: TcpListener, times: usize) -> JoinHandle<()> {
    tokio::spawn(async move {
        for _ in 0..times {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1_024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
}

/// One that stands for the outside, and one inside, at the same port.
async fn outside_and_inside() -> (TcpListener, TcpListener, u16) {
    loop {
        let outside = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = outside.local_addr().unwrap().port();
        if let Ok(inside) = TcpListener::bind(("127.0.0.1", port)).await {
            return (outside, inside, port);
        }
    }
}

#[tokio::test]
async fn a_name_that_is_bound_anew_leads_nowhere() {
    let (outside, inside, port) = outside_and_inside().await;
    let outside_address: SocketAddr = "127.0.0.2:0".parse().unwrap();
    let inside_address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let answers = [
        vec![outside_address],
        vec![inside_address],
        // Where both are given, the other is no second choice.
        vec![outside_address, inside_address],
    ];
    let names = Arc::new(Told(Mutex::new(answers.into())));
    let guard = guard(&["127.0.0.2"]);
    let client = guard.client_with(deadlines(), names).unwrap();
    let url = format!("http://rebound.example:{port}/");

    let served = answering(outside, 1);
    let answer = http::ask(client.post(&url)).await.unwrap();
    assert!(answer.status.is_success());
    // Now nobody listens there any more.
    served.await.unwrap();

    let failure = http::ask(client.post(&url)).await.unwrap_err();
    assert_eq!(failure, blocked());
    let failure = http::ask(client.post(&url)).await.unwrap_err();
    assert_eq!(failure.code, "connection_error", "{failure:?}");

    // Nobody has come: the next connection is the test's own.
    let own = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
    let own = own.unwrap().local_addr().unwrap();
    assert_eq!(inside.accept().await.unwrap().1, own);
}

#[tokio::test]
async fn the_machines_own_names_are_blocked_and_allowed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    let served = answering(listener, 1);
    let client = guard(&[]).client(deadlines()).unwrap();
    let started = Instant::now();
    assert_eq!(http::ask(client.post(&url)).await.unwrap_err(), blocked());
    assert!(started.elapsed() < Duration::from_secs(2));
    let client = guard(&["127.0.0.0/8", "::1"]).client(deadlines()).unwrap();
    assert!(
        http::ask(client.post(&url))
            .await
            .unwrap()
            .status
            .is_success()
    );
    served.await.unwrap();
}
