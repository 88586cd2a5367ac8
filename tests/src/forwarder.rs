//! A door in front of a server, which opens when a test says so.

use std::net::Ipv4Addr;

use herald_test_servers::net::free_port;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// An address where nothing listens until it is opened; then it is the server's. Dropped, it closes
/// with all connections.
pub struct Forwarder {
    port: u16,
    to: String,
    accepting: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// In front of the server at `to`, `host:port`; closed.
    pub fn new(to: &str) -> Self {
        Self {
            port: free_port(),
            to: to.to_owned(),
            accepting: None,
        }
    }

    /// Where it is, `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Lets everyone through from now on.
    ///
    /// # Panics
    ///
    /// When somebody else took its port.
    pub async fn open(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await;
        let listener = listener.expect("the port is still free");
        self.accepting = Some(tokio::spawn(accept(listener, self.to.clone())));
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

async fn accept(listener: TcpListener, to: String) {
    // They end with this task.
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let to = to.clone();
        connections.spawn(async move {
            let mut server = TcpStream::connect(to).await?;
            copy_bidirectional(&mut client, &mut server).await
        });
    }
}
