//! What is read from operators: configuration, `chap-secrets`, requests on the control socket.

use turnpike_controlplane::aaa::chap_secrets as secrets;
use turnpike_controlplane::admin::Request;
use turnpike_controlplane::config;

use super::Trace;

/// Any octets are users, or faults with a line that exists and something to write instead.
pub fn chap_secrets(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let lines = octets.split(|octet| *octet == b'\n').count();
    match secrets::parse(octets, "chap-secrets", "turnpike") {
        Ok(entries) => {
            trace.note(entries.len().min(8));
            for entry in entries {
                assert!((1..=lines).contains(&entry.line));
                trace.note((entry.client.is_none(), entry.server.is_none()));
            }
        }
        Err(findings) => {
            assert!(!findings.is_empty());
            trace.note(findings.len().min(8));
            for finding in findings {
                assert!(!finding.to_string().is_empty());
            }
        }
    }
    trace
}

/// Lines of every form.
pub fn chap_secrets_seeds() -> Vec<Vec<u8>> {
    [
        "# secrets\nalice turnpike \"correct horse\" 10.20.0.9\nbob * 'pa ss' *\n* * open -\n",
        "carol\tturnpike\tpass\\ word\t10.20.0.0/24 10.21.0.1\n\"DOMAIN\\\\dave\" other secret *\n",
        "erin * \"a\\\"b\\\\c\\n\\t\\s\\033\\x41\" \\\n10.20.0.10\n\n   # only a comment\nfrank * x # y\n",
        "one\ntwo words\nthree turnpike \"\"\nfour turnpike x 300.1.1.1\nfive turnpike \"open\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Any text is a configuration, or faults.
pub fn configuration(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    let text = String::from_utf8_lossy(octets);
    match config::parse(&text, "turnpike.toml") {
        Ok(loaded) => trace.note(loaded.warnings.len()),
        Err(config::Faults(faults)) => {
            assert!(!faults.is_empty());
            for fault in faults.iter().take(4) {
                // Names and values of the text are in it: its shape is what counts.
                let shape: String = fault
                    .to_string()
                    .chars()
                    .filter(|c| c.is_ascii_lowercase())
                    .take(24)
                    .collect();
                trace.note(shape);
            }
        }
    }
    trace
}

/// The examples, and a file with one of everything.
pub fn configuration_seeds() -> Vec<Vec<u8>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/");
    let mut seeds: Vec<Vec<u8>> = ["office.toml", "edge.toml"]
        .iter()
        .filter_map(|name| std::fs::read(format!("{root}{name}")).ok())
        .collect();
    assert_eq!(seeds.len(), 2, "the examples");
    seeds.push(
        br#"server = { name = "x", listen = ["10.7.0.1"], workers = 1, cpus = [1] }
[access]
interface = "eth0"
mode = "generic"
[network]
server_address = "10.20.0.1"
pool = ["10.20.0.10-10.20.3.250", "10.21.0.0/24"]
dns = ["10.20.0.1"]
nbns = []
mtu = 1400
[[user]]
name = "alice"
password = "correct horse"
address = "10.20.0.9"
[limits]
calls = 65000
connections_per_source = 64
unauthenticated_per_source = 16
setup_time = "30s"
echo_interval = "1m 30s"
[log]
format = "json"
level = "debug"
"#
        .to_vec(),
    );
    seeds
}

/// Any line is a request, or an error.
pub fn operator_request(octets: &[u8]) -> Trace {
    let mut trace = Trace::default();
    match serde_json::from_slice::<Request>(octets) {
        Ok(request) => {
            trace.note(std::mem::discriminant(&request));
            let line = serde_json::to_vec(&request).expect("what was read can be written");
            assert_eq!(
                serde_json::from_slice::<Request>(&line).expect("and read again"),
                request
            );
        }
        Err(error) => trace.note(
            error
                .to_string()
                .chars()
                .filter(|c| c.is_ascii_lowercase())
                .take(16)
                .collect::<String>(),
        ),
    }
    trace
}

/// Requests as the command line makes them.
pub fn operator_request_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"request":"sessions"}"#,
        r#"{"request":"stats"}"#,
        r#"{"request":"kill","calls":{"call":7}}"#,
        r#"{"request":"kill","calls":"all"}"#,
        r#"{"request":"capture","calls":{"client":"10.7.0.2"}}"#,
        r#"{"request":"capture","calls":{"user":"alice"}}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
