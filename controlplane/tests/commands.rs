//! The binary as operators use it: exit codes, both kinds of output, and a capture that is interrupted. The server is
//! a made-up one behind the real control socket.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test ends at the first thing that fails, and says when it skips"
)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use turnpike_controlplane::admin::{
    Backend, Killed, Lcp, Packet, Selector, Server, Session, Side, Stats,
};
use turnpike_controlplane::cause::Cause;
use turnpike_dataplane::api::CallCounters;

fn turnpike(line: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
    command.args(line).stdin(Stdio::null());
    command
}

fn out(line: &[&str]) -> Output {
    turnpike(line).output().unwrap()
}

#[track_caller]
fn code(output: &Output, expected: i32) {
    assert_eq!(
        output.status.code(),
        Some(expected),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn check_tells_good_from_bad() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/office.toml");
    let example = example.to_str().unwrap();
    let good = out(&["check", "--config", example]);
    code(&good, 0);
    assert!(text(&good.stdout).ends_with("office.toml: good\n"));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.toml");
    std::fs::write(&path, "[network]\nmtu = 1500\nmode = 3\n").unwrap();
    let path = path.to_str().unwrap();
    let bad = out(&["check", "--config", path]);
    code(&bad, 3);
    let faults = text(&bad.stdout);
    // No [access], no server address, no pool, too large an MTU, a key that is none.
    assert_eq!(faults.lines().count(), 5, "{faults}");
    assert!(faults.contains("bad.toml:2: `mtu` in [network] is 1500"));
    let json = out(&["check", "--config", path, "--json"]);
    code(&json, 3);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["faults"].as_array().unwrap().len(), 5);
    assert_eq!(json["faults"][0]["line"], serde_json::Value::Null);

    let run = out(&["run", "--config", path]);
    code(&run, 3);
    assert!(
        text(&run.stderr).contains("bad.toml:2: `mtu`"),
        "run lists them too"
    );
    code(&out(&["check", "--config", "/nowhere/x.toml"]), 3);
}

#[test]
fn without_a_server_there_is_a_code_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("turnpike.sock");
    let socket = socket.to_str().unwrap();
    for line in [
        &["sessions"][..],
        &["stats", "--json"],
        &["kill", "--all"],
        &["capture", "--call", "1", "-w", "-"],
    ] {
        let output = out(&[line, &["--socket", socket]].concat());
        code(&output, 4);
        assert!(text(&output.stderr).contains("is it running?"));
        assert!(output.stdout.is_empty());
    }
    code(&out(&["kill"]), 2);
    code(&out(&["dance"]), 2);
}

/// One call; its captures get a packet of the client each millisecond.
struct OneCall;

impl Backend for OneCall {
    async fn sessions(&self) -> Vec<Session> {
        vec![Session {
            call_id: 17,
            peer_call_id: 2,
            tunnel: 1,
            state: "up".to_owned(),
            user: Some("alice".to_owned()),
            client: [192, 0, 2, 7].into(),
            local: [192, 0, 2, 1].into(),
            address: Some([10, 20, 0, 10].into()),
            ipv6_prefix: None,
            ipv6_delegated: None,
            worker: 0,
            port: "eth0".to_owned(),
            xdp_mode: "native".to_owned(),
            up_seconds: 1,
            mppe_receive: None,
            mppe_transmit: None,
            mtu: Some(1400),
            lcp: Lcp::default(),
            counters: CallCounters::default(),
        }]
    }

    async fn stats(&self) -> Stats {
        Stats::default()
    }

    async fn kill(&self, selector: Selector, _cause: Cause) -> Result<Vec<Killed>, String> {
        let sessions = self.sessions().await;
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

    async fn capture(&self, _selector: Selector) -> Result<mpsc::Receiver<Packet>, String> {
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            for number in 0_u64.. {
                let packet = Packet {
                    call_id: 17,
                    unix_nanos: 1_700_000_000_000_000_000 + number,
                    side: Side::Inner,
                    inbound: true,
                    original_len: 28,
                    bytes: udp(),
                    lost: 0,
                };
                if sender.send(packet).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Ok(receiver)
    }
}

/// An empty UDP datagram to the discard port.
fn udp() -> Vec<u8> {
    vec![
        0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 20, 0, 10, 9, 9, 9, 9, 0, 9, 0, 9, 0, 8, 0, 0,
    ]
}

/// Packets in a file, and malformed ones among them, as tshark sees it; `None` without tshark.
fn tshark(path: &Path) -> Option<(usize, String)> {
    let output = Command::new("tshark")
        .args(["-r", path.to_str()?, "-T", "fields", "-e", "frame.number"])
        .args(["-e", "_ws.malformed"])
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: tshark is not installed, nobody else looked at the capture file");
        return None;
    };
    assert!(output.status.success(), "{}", text(&output.stderr));
    let fields = text(&output.stdout);
    let malformed = fields
        .lines()
        .filter(|line| !line.trim_end().ends_with(char::is_numeric));
    Some((fields.lines().count(), malformed.collect()))
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn interrupt(child: &Child) {
    let status = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn commands_reach_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("turnpike.sock");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = {
        let _inside = runtime.enter();
        Server::bind(&path, 0o600).unwrap()
    };
    runtime.spawn(async move { server.serve(Arc::new(OneCall)).await });
    let socket = ["--socket", path.to_str().unwrap()];
    let ask = |line: &[&str]| out(&[line, &socket].concat());

    let sessions = ask(&["sessions"]);
    code(&sessions, 0);
    assert!(text(&sessions.stdout).contains("alice"));
    let json: serde_json::Value =
        serde_json::from_slice(&ask(&["sessions", "--json"]).stdout).unwrap();
    assert_eq!(json[0]["address"], "10.20.0.10");
    assert_eq!(json[0]["mppe_receive"], serde_json::Value::Null);
    code(&ask(&["stats"]), 0);

    let killed = ask(&["kill", "--user", "alice"]);
    code(&killed, 0);
    assert!(text(&killed.stdout).starts_with("ended call 17 of alice"));
    let nobody = ask(&["kill", "--call", "18"]);
    code(&nobody, 1);
    assert!(text(&nobody.stderr).contains("no such call"));

    // So many packets and no more.
    let file = directory.path().join("three.pcapng");
    let write = ["capture", "--call", "17", "-w", file.to_str().unwrap()];
    let capture = ask(&[&write[..], &["--packets", "3"]].concat());
    code(&capture, 0);
    assert!(
        text(&capture.stdout).starts_with("3 packets, "),
        "{}",
        text(&capture.stdout)
    );
    if let Some(seen) = tshark(&file) {
        assert_eq!(seen, (3, String::new()));
    }

    // Interrupted at any moment, the file is whole.
    let file = directory.path().join("interrupted.pcapng");
    let write = [
        "capture",
        "--client",
        "10.20.0.10",
        "-w",
        file.to_str().unwrap(),
        "--json",
    ];
    let child = turnpike(&[&write[..], &socket].concat())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("no packet was captured", || {
        std::fs::metadata(&file).is_ok_and(|file| file.len() > 2000)
    });
    interrupt(&child);
    let capture = child.wait_with_output().unwrap();
    code(&capture, 0);
    let summary: serde_json::Value = serde_json::from_slice(&capture.stdout).unwrap();
    assert_eq!(summary["octets"], std::fs::metadata(&file).unwrap().len());
    if let Some((packets, malformed)) = tshark(&file) {
        assert_eq!(summary["packets"], packets);
        assert_eq!(malformed, "");
    }

    // To a file that cannot be made: told, and nothing is left running.
    let capture = ask(&["capture", "--call", "17", "-w", "/nowhere/file"]);
    code(&capture, 1);
    assert!(text(&capture.stderr).contains("/nowhere/file: "));
}
