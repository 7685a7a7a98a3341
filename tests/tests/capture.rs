//! `turnpike capture` and the other operator commands against a server that carries a call.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use xtask::lab::dial::{self, Client, Plan};
use xtask::lab::netns::Namespace;
use xtask::lab::process::{Process, run};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server};
use xtask::lab::{binary, needs, until};

/// Datagrams that the client sends, each of another size.
const DATAGRAMS: usize = 40;
/// What each of them starts with.
const MARKER: &[u8] = b"in clear inside, never outside ";
/// A port that no dissector claims.
const PORT: u16 = 47_011;

/// One packet of a capture, as tshark dissects it.
#[derive(Debug)]
struct Seen {
    interface: String,
    inbound: bool,
    /// Outermost first.
    source: Vec<Ipv4Addr>,
    /// `0x00fd` and the like.
    ppp: Option<String>,
    /// Payload of UDP.
    payload: Option<Vec<u8>>,
    malformed: bool,
    marked: bool,
}

/// What tshark makes of a capture file; `None`, said loudly, where there is no tshark.
fn dissect(file: &Path) -> Result<Option<Vec<Seen>>> {
    if needs::find("tshark").is_none() {
        #[allow(clippy::print_stderr, reason = "a test that skips says so")]
        {
            eprintln!("SKIPPED: tshark is not installed, nobody else looked at the capture");
        }
        return Ok(None);
    }
    let fields = [
        "frame.number",
        "frame.interface_name",
        "frame.packet_flags_direction",
        "ip.src",
        "ppp.protocol",
        "udp.payload",
        "_ws.malformed",
    ];
    let tshark = |filter: &str, fields: &[&str]| -> Result<String> {
        let mut command = Command::new("tshark");
        command.arg("-n").arg("-r").arg(file).args(["-Y", filter]);
        command.args(["-T", "fields", "-E", "separator=|"]);
        for field in fields {
            command.args(["-e", field]);
        }
        run(&mut command)
    };
    // Looked for in the octets, whatever the dissection.
    let text = std::str::from_utf8(MARKER)?;
    let marked = tshark(&format!("frame contains \"{text}\""), &["frame.number"])?;
    let marked: Vec<&str> = marked.lines().collect();
    let mut packets = Vec::new();
    for line in tshark("frame", &fields)?.lines() {
        let mut columns = line.split('|');
        let mut next = || {
            columns
                .next()
                .with_context(|| format!("short line: {line}"))
        };
        let number = next()?;
        packets.push(Seen {
            interface: next()?.to_owned(),
            inbound: next()?.ends_with('1'),
            source: next()?
                .split(',')
                .filter_map(|address| address.parse().ok())
                .collect(),
            ppp: Some(next()?.to_owned()).filter(|text| !text.is_empty()),
            payload: octets(next()?),
            malformed: !next()?.is_empty(),
            marked: marked.contains(&number),
        });
    }
    Ok(Some(packets))
}

/// Octets from hexadecimal digits; `None` when there are none.
fn octets(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    Some(pairs.collect::<Option<Vec<u8>>>()?).filter(|octets| !octets.is_empty())
}

/// Sends back every datagram, upper case made of lower case, until the test ends.
fn answer(namespace: &Namespace) -> Result<()> {
    let (ready, open) = std::sync::mpsc::channel();
    // The thread lives as long as the test's process: it only ever waits on its socket.
    drop(namespace.enter(move || -> Result<()> {
        let socket = UdpSocket::bind((road::TARGET, PORT))?;
        ready.send(())?;
        let mut buffer = [0; 2048];
        loop {
            let (len, from) = socket.recv_from(&mut buffer)?;
            socket.send_to(&buffer[..len].to_ascii_uppercase(), from)?;
        }
    })?);
    open.recv_timeout(Duration::from_secs(5))
        .context("nobody answers on the internet")
}

/// Payloads, in order.
type Payloads = Vec<Vec<u8>>;

/// Sends the datagrams from the client's namespace, one after the other's answer; what was sent, what came back.
fn converse(namespace: &Namespace) -> Result<(Payloads, Payloads)> {
    let talk = namespace.enter(|| -> Result<_> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(SocketAddrV4::new(road::TARGET, PORT))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (mut sent, mut came) = (Vec::new(), Vec::new());
        for number in 0..DATAGRAMS {
            let mut datagram = MARKER.to_vec();
            // From the marker alone to as much as an MTU of 1400 lets through.
            let len = MARKER.len() + number * (1372 - MARKER.len()) / (DATAGRAMS - 1);
            datagram.resize(len, b'a' + u8::try_from(number % 26)?);
            socket.send(&datagram)?;
            let mut buffer = [0; 2048];
            let len = socket
                .recv(&mut buffer)
                .with_context(|| format!("no answer to datagram {number}"))?;
            sent.push(datagram);
            came.push(buffer[..len].to_vec());
        }
        Ok((sent, came))
    })?;
    talk.join()
        .map_err(|_| anyhow::anyhow!("the client's thread panicked"))?
}

/// A server that stands on the road, and where its socket is.
fn serve(road: &Road) -> Result<(Server, Configuration, String)> {
    let configuration = Configuration::example("office", road.lab.directory())?;
    let server = Server::start(&road.concentrator, &configuration)?;
    let socket = road.lab.directory().join("run/turnpike.sock");
    Ok((server, configuration, socket.display().to_string()))
}

/// Starts `turnpike capture` and waits until it runs.
fn start_capture(road: &Road, socket: &str, words: &[&str], file: &Path) -> Result<Process> {
    let mut command = Command::new(binary("turnpike")?);
    command
        .arg("capture")
        .args(words)
        .args(["--json", "--socket", socket, "-w"])
        .arg(file);
    let process = road.lab_process("capture", &command)?;
    // The header is written when the server has begun.
    until("the capture begins", Duration::from_secs(10), || {
        let begun = std::fs::metadata(file).is_ok_and(|file| file.len() > 0);
        Ok(begun.then_some(()))
    })?;
    Ok(process)
}

/// Processes outside all namespaces.
trait Start {
    fn lab_process(&self, name: &str, command: &Command) -> Result<Process>;
}

impl Start for Road {
    fn lab_process(&self, name: &str, command: &Command) -> Result<Process> {
        Process::start(name, command, self.lab.directory())
    }
}

/// Dials with MPPE and sends everything through the call.
fn dial(road: &Road, configuration: &Configuration) -> Result<Client> {
    let plan = Plan::new(configuration.user()?);
    let mut client = Client::start(&road.client, "turnpike-bench", &plan)?;
    client.wait_up(1, Duration::from_secs(30))?;
    let route = format!("route replace default dev {}", dial::TUNNEL_INTERFACE);
    road.client.ip(&route)?;
    Ok(client)
}

#[test]
fn a_capture_holds_what_the_client_sent_in_clear_and_the_gre_as_it_came() -> Result<()> {
    let road = Road::build(ClientSide::Namespace)?;
    let (server, configuration, socket) = serve(&road)?;
    answer(&road.internet)?;
    let file = road.lab.directory().join("call.pcapng");
    // Before there is a call: it must be picked up from its first packet.
    let client_address = road::CLIENT.to_string();
    let mut capture = start_capture(&road, &socket, &["--client", &client_address], &file)?;
    let mut client = dial(&road, &configuration)?;
    let (sent, came) =
        converse(&road.client).with_context(|| format!("turnpike's log:\n{}", server.log()))?;
    let session = server.sessions()?.pop().context("no session")?;
    ensure!(session["mppe_receive"]["bits"] == 128, "{session}");
    let began = Instant::now();
    client.hang_up()?;
    // Clear, notify, stop, reply: a farewell that takes seconds has run into a time-out of either side.
    ensure!(
        began.elapsed() < Duration::from_secs(4),
        "the farewell took {:?}",
        began.elapsed()
    );
    until("the call is gone", Duration::from_secs(10), || {
        Ok(server.sessions()?.is_empty().then_some(()))
    })?;
    capture.signal(Signal::INT)?;
    let status = capture.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "{}", capture.tail());
    let summary: Value = serde_json::from_str(&capture.output())?;

    let Some(packets) = dissect(&file)? else {
        return Ok(());
    };
    assert_eq!(summary["packets"], packets.len());
    let malformed: Vec<_> = packets.iter().filter(|packet| packet.malformed).collect();
    assert!(malformed.is_empty(), "{malformed:#?}");

    let payloads = |inbound: bool, source: Ipv4Addr| -> Vec<&Vec<u8>> {
        packets
            .iter()
            .filter(|packet| packet.interface == "inner" && packet.inbound == inbound)
            .filter(|packet| packet.source == [source])
            .filter_map(|packet| packet.payload.as_ref())
            .collect()
    };
    let address: Ipv4Addr = session["address"].as_str().context("no address")?.parse()?;
    assert_eq!(payloads(true, address), sent.iter().collect::<Vec<_>>());
    assert_eq!(
        payloads(false, road::TARGET),
        came.iter().collect::<Vec<_>>()
    );

    // The marker is in what the client sent and nowhere else: answers are in capitals, and outside it is encrypted.
    let marked: Vec<_> = packets.iter().filter(|packet| packet.marked).collect();
    assert_eq!(marked.len(), DATAGRAMS);
    assert!(marked.iter().all(|packet| packet.interface == "inner"));

    let outer = |inbound: bool, source: Ipv4Addr, ppp: &str| {
        packets
            .iter()
            .filter(|packet| packet.interface == "outer" && packet.inbound == inbound)
            .filter(|packet| packet.source.first() == Some(&source))
            .filter(|packet| packet.ppp.as_deref() == Some(ppp))
            .count()
    };
    for (inbound, source) in [(true, road::CLIENT), (false, road::SERVER)] {
        assert!(
            outer(inbound, source, "0x00fd") >= DATAGRAMS,
            "MPPE of {source}"
        );
        assert!(outer(inbound, source, "0xc021") > 0, "LCP of {source}");
    }
    Ok(())
}

#[test]
fn operators_see_a_call_and_end_it() -> Result<()> {
    let road = Road::build(ClientSide::Namespace)?;
    let (server, configuration, socket) = serve(&road)?;
    let turnpike = |words: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = Command::new(binary("turnpike")?);
        let output = command.args(words).args(["--socket", &socket]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code(), text))
    };
    assert_eq!(turnpike(&["sessions"])?, (Some(0), "no calls\n".to_owned()));
    let mut client = dial(&road, &configuration)?;
    let user = configuration.user()?.name;

    let (code, text) = turnpike(&["sessions"])?;
    assert_eq!(code, Some(0));
    let session = server.sessions()?.pop().context("no session")?;
    let field = |name: &str| session[name].as_str().unwrap_or_default().to_owned();
    for part in [
        &user,
        &field("address"),
        &field("client"),
        "128/128",
        "1 call\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(field("client"), road::CLIENT.to_string());
    assert_eq!(field("port"), road::ACCESS_INTERFACE);
    assert_eq!(session["state"], "up");

    let (code, text) = turnpike(&["stats"])?;
    assert_eq!(code, Some(0));
    assert!(text.contains("1 calls in 1 control connections"), "{text}");
    assert!(text.contains(road::ACCESS_INTERFACE), "{text}");

    // Nobody of this name; then the call itself, by its inner address.
    assert_eq!(turnpike(&["kill", "--user", "nobody"])?.0, Some(1));
    assert_eq!(server.sessions()?.len(), 1);
    let (code, text) = turnpike(&["kill", "--client", &field("address")])?;
    assert_eq!(code, Some(0));
    assert!(text.starts_with(&format!("ended call {} of {user}", session["call_id"])));
    until("the call is gone", Duration::from_secs(10), || {
        Ok(server.sessions()?.is_empty().then_some(()))
    })?;
    // The client was told, so it ends by itself.
    client
        .wait(Duration::from_secs(20))
        .with_context(|| format!("the client was not told:\n{}", client.text()))?;
    server.says(&["ended by the operator"])?;
    Ok(())
}
