//! How the API is served.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::served::Served;

#[tokio::test]
async fn it_stops_though_a_client_keeps_its_connection() {
    let api = Served::start().await;
    let mut idle = TcpStream::connect(&api.address).await.unwrap();
    let ping = b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n";
    idle.write_all(ping).await.unwrap();
    assert!(idle.read(&mut [0; 1_024]).await.unwrap() > 0);
    api.stop.send(()).unwrap();
    let ended = timeout(Duration::from_secs(4), api.server).await;
    ended.unwrap().unwrap().unwrap();
}
