//! Both ends of the control socket, with a backend that makes its calls up.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use turnpike_dataplane::api::{CallCounters, Mppe};

use super::*;
use crate::pcapng::Blocks;

/// Two calls; kills and captures are written down.
#[derive(Default)]
struct MadeUp {
    killed: Mutex<Vec<(Selector, Cause)>>,
    captures: Mutex<Vec<mpsc::Sender<Packet>>>,
}

fn session(call_id: u16, user: &str) -> Session {
    Session {
        call_id,
        peer_call_id: 1,
        tunnel: 3,
        state: "up".to_owned(),
        user: Some(user.to_owned()),
        client: "192.0.2.7".parse().unwrap(),
        local: "192.0.2.1".parse().unwrap(),
        address: Some("10.20.0.10".parse().unwrap()),
        ipv6_prefix: Some("2001:db8:1:7::/64".parse().unwrap()),
        ipv6_delegated: None,
        worker: 0,
        port: "eth0".to_owned(),
        xdp_mode: "native".to_owned(),
        up_seconds: 75,
        mppe_receive: Some(Mppe {
            bits: 128,
            stateless: true,
        }),
        mppe_transmit: None,
        mtu: Some(1400),
        lcp: Lcp::default(),
        counters: CallCounters {
            received_octets: 12_345_678,
            ..CallCounters::default()
        },
    }
}

fn packet(len: usize) -> Packet {
    Packet {
        call_id: 17,
        unix_nanos: 1_700_000_000_000_000_000,
        side: Side::Inner,
        inbound: true,
        original_len: u32::try_from(len).unwrap(),
        bytes: vec![0x45; len],
        lost: 0,
    }
}

impl Backend for MadeUp {
    async fn sessions(&self) -> Vec<Session> {
        vec![session(17, "alice"), session(18, "bob")]
    }

    async fn stats(&self) -> Stats {
        let mut stats = Stats {
            version: "1.2.3".to_owned(),
            calls: 2,
            workers: vec![WorkerStats {
                ports: vec![PortStats {
                    port: types::Port::Access,
                    interface: "eth0".to_owned(),
                    queue: 0,
                    mode: "native".to_owned(),
                    zero_copy: false,
                    received: 11,
                    transmitted: 12,
                    rx_dropped: 0,
                    rx_ring_full: 0,
                    other: [("wakeups".to_owned(), 5)].into(),
                }],
                ..WorkerStats::default()
            }],
            ..Stats::default()
        };
        let drops = &mut stats.workers[0].drops;
        drops.insert("unknown_call".to_owned(), 7);
        drops.insert("late".to_owned(), 70);
        stats
    }

    async fn kill(&self, selector: Selector, cause: Cause) -> Result<Vec<Killed>, String> {
        if selector == call(99) {
            return Err("several calls have this id".to_owned());
        }
        self.killed.lock().unwrap().push((selector.clone(), cause));
        let sessions = [session(17, "alice"), session(18, "bob")];
        let meant = sessions.into_iter().filter(|session| {
            selector.matches(
                session.call_id,
                session.user.as_deref(),
                session.client,
                session.address,
            )
        });
        Ok(meant
            .map(|session| Killed {
                call_id: session.call_id,
                user: session.user,
                client: session.client,
                address: session.address,
            })
            .collect())
    }

    async fn capture(&self, selector: Selector) -> Result<mpsc::Receiver<Packet>, String> {
        if selector == call(99) {
            return Err("no room".to_owned());
        }
        let (sender, receiver) = mpsc::channel(CAPTURE_BACKLOG);
        self.captures.lock().unwrap().push(sender);
        Ok(receiver)
    }
}

fn call(id: u16) -> Selector {
    Selector::Call { id, client: None }
}

/// A server that runs until the test ends.
struct Running {
    directory: tempfile::TempDir,
    backend: Arc<MadeUp>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::bind(&directory.path().join(SOCKET_NAME), 0o600).unwrap();
        let backend = Arc::new(MadeUp::default());
        let task = tokio::spawn({
            let backend = backend.clone();
            async move { server.serve(backend).await }
        });
        Self {
            directory,
            backend,
            task,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET_NAME)
    }

    async fn client(&self) -> Client {
        Client::connect(&self.socket()).await.unwrap()
    }

    /// What the server says to these octets.
    async fn say(&self, octets: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        stream.write_all(octets).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn answers_what_was_asked_on_one_connection() {
    let running = Running::start();
    let mut client = running.client().await;
    let Response::Sessions(sessions) = client.ask(&Request::Sessions).await.unwrap() else {
        panic!("not sessions");
    };
    assert_eq!(sessions, running.backend.sessions().await);
    let Response::Stats(stats) = client.ask(&Request::Stats).await.unwrap() else {
        panic!("not stats");
    };
    assert_eq!(*stats, running.backend.stats().await);
    let calls = Selector::User("bob".to_owned());
    let kill = Request::Kill {
        calls: calls.clone(),
    };
    let Response::Killed(killed) = client.ask(&kill).await.unwrap() else {
        panic!("not killed");
    };
    assert_eq!(killed.len(), 1);
    assert_eq!(killed[0].call_id, 18);
    assert_eq!(
        *running.backend.killed.lock().unwrap(),
        [(calls, Cause::Killed)]
    );
    assert_eq!(
        killed_text(&killed),
        "ended call 18 of bob (192.0.2.7, 10.20.0.10)\n"
    );
}

#[test]
fn selectors_know_both_addresses_and_domains() {
    let matches = |selector: Selector| {
        selector.matches(
            17,
            Some("HQ\\alice"),
            "192.0.2.7".parse().unwrap(),
            Some("10.20.0.10".parse().unwrap()),
        )
    };
    assert!(matches(call(17)) && !matches(call(18)));
    let at = |id, client| Selector::Call {
        id,
        client: Some(client),
    };
    let outer = session(17, "x").client;
    assert!(matches(at(17, outer)) && !matches(at(18, outer)));
    assert!(!matches(at(17, core::net::Ipv4Addr::new(10, 9, 9, 9))));
    assert!(matches(Selector::User("alice".to_owned())));
    assert!(matches(Selector::User("HQ\\alice".to_owned())));
    assert!(!matches(Selector::User("bob".to_owned())));
    assert!(matches(Selector::Client("192.0.2.7".parse().unwrap())));
    assert!(matches(Selector::Client("10.20.0.10".parse().unwrap())));
    assert!(!matches(Selector::Client("10.20.0.11".parse().unwrap())));
    assert!(matches(Selector::All));
}

#[tokio::test]
async fn json_is_plain() {
    let running = Running::start();
    assert!(
        running
            .say(b"{\"request\":\"sessions\"}\n")
            .await
            .starts_with("{\"sessions\":[{\"call_id\":17,\"peer_call_id\":1,\"tunnel\":3,")
    );
    let kill = br#"{"request":"kill","calls":{"client":"10.0.0.1"}}"#;
    assert_eq!(
        running.say(&[kill, &b"\n"[..]].concat()).await,
        "{\"killed\":[]}\n"
    );
    let stats: serde_json::Value =
        serde_json::from_str(&running.say(b"{\"request\":\"stats\"}\n").await).unwrap();
    let port = &stats["stats"]["workers"][0]["ports"][0];
    assert_eq!(port["port"], "access");
    assert_eq!(port["wakeups"], 5);
}

#[tokio::test]
async fn nonsense_is_answered_or_cut_off_and_harms_nobody() {
    let running = Running::start();
    assert!(
        running
            .say(b"hello\n")
            .await
            .starts_with("{\"error\":\"not a request")
    );
    assert!(
        running
            .say(b"{\"request\":\"dance\"}\n")
            .await
            .starts_with("{\"error\":")
    );
    assert_eq!(running.say(b"{\"request\":").await, "");
    // Without an end: cut off instead of gathered. The server may close before it has read all.
    let mut stream = UnixStream::connect(running.socket()).await.unwrap();
    let endless = async { while stream.write_all(&[b'x'; 4096]).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(5), endless)
        .await
        .unwrap();
    assert!(
        running
            .say(b"{\"request\":\"sessions\"}\n")
            .await
            .contains("alice")
    );
}

#[tokio::test]
async fn silent_operators_do_not_keep_others_waiting() {
    let running = Running::start();
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(UnixStream::connect(running.socket()).await.unwrap());
    }
    let asked = running.say(b"{\"request\":\"sessions\"}\n");
    assert!(
        tokio::time::timeout(Duration::from_secs(5), asked)
            .await
            .unwrap()
            .contains("alice")
    );
}

#[tokio::test]
async fn a_capture_streams_until_the_operator_leaves() {
    let running = Running::start();
    let mut client = running.client().await;
    let calls = call(17);
    let capturing = client.ask(&Request::Capture { calls }).await.unwrap();
    assert_eq!(capturing, Response::Capturing);
    let sender = running.backend.captures.lock().unwrap()[0].clone();
    for len in [20, 1400, 33] {
        sender.send(packet(len)).await.unwrap();
    }
    let (mut blocks, mut kinds) = (Blocks::default(), Vec::new());
    while kinds.len() < 6 {
        let whole = client.blocks(&mut blocks).await.unwrap();
        kinds.extend(whole.iter().map(|block| block.is_packet));
    }
    assert_eq!(kinds, [false, false, false, true, true, true]);
    drop(client);
    // Nobody sends a packet: the server must notice all the same.
    tokio::time::timeout(Duration::from_secs(5), sender.closed())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_reader_who_pauses_loses_packets_and_blocks_nobody() {
    let running = Running::start();
    let mut paused = running.client().await;
    let calls = Selector::All;
    paused.ask(&Request::Capture { calls }).await.unwrap();
    let sender = running.backend.captures.lock().unwrap()[0].clone();
    let mut taken = 0_u32;
    for _ in 0..20_000 {
        taken += u32::from(sender.try_send(packet(1400)).is_ok());
        if taken.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
    }
    assert!(taken < 20_000, "all taken: the channel is not bounded");
    assert!(
        running
            .say(b"{\"request\":\"sessions\"}\n")
            .await
            .contains("alice")
    );
}

#[tokio::test]
async fn captures_are_few_and_may_be_refused() {
    let running = Running::start();
    let capture = |id| Request::Capture { calls: call(id) };
    let refused = running.client().await.ask(&capture(99)).await;
    assert_eq!(refused.unwrap_err().to_string(), "no room");
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = running.client().await;
        client.ask(&capture(1)).await.unwrap();
        clients.push(client);
    }
    let refused = running.client().await.ask(&capture(1)).await;
    assert_eq!(refused.unwrap_err().to_string(), "8 captures run already");
}

#[tokio::test]
async fn the_socket_is_private_replaces_a_dead_one_and_goes_with_the_server() {
    let running = Running::start();
    let socket = running.socket();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Server::bind(&socket, 0o600);
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    running.task.abort();
    let _ = running.task.await;
    assert!(!socket.exists());
    let missing = Client::connect(&socket).await.unwrap_err();
    assert!(missing.to_string().contains("is it running?"), "{missing}");

    // What a killed server leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let dead = Client::connect(&socket).await.unwrap_err();
    assert!(matches!(dead, Error::Unreachable { .. }), "{dead}");
    let first = Server::bind(&socket, 0o660).unwrap();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let left: Vec<_> = std::fs::read_dir(running.directory.path())
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");

    // A successor's socket is not taken away by its predecessor.
    std::fs::remove_file(&socket).unwrap();
    let successor = Server::bind(&socket, 0o600).unwrap();
    drop(first);
    assert!(socket.exists());
    drop(successor);
    assert!(!socket.exists());
}

#[tokio::test]
async fn people_read_the_same_values() {
    let backend = MadeUp::default();
    let text = sessions_text(&backend.sessions().await);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    for part in [
        "17 ",
        "alice",
        "192.0.2.7",
        "10.20.0.10",
        "1m 15s",
        "128/-",
        "1400",
        "12.3 MB",
        "eth0 (native)",
    ] {
        assert!(lines[1].contains(part), "{part}: {}", lines[1]);
    }
    assert_eq!(lines[3], "2 calls");
    assert_eq!(sessions_text(&[]), "no calls\n");

    let text = stats_text(&backend.stats().await);
    assert!(text.starts_with("turnpike 1.2.3, up 0s: 2 calls"), "{text}");
    // The most frequent drop comes first.
    assert!(
        text.contains("  dropped\n    70  late\n     7  unknown_call\n"),
        "{text}"
    );
    assert!(!text.contains("control plane"), "{text}");
}
