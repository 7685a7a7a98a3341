//! `turnpike-bench` against a server that nobody here wrote: pptpd and pppd in a guest.
//!
//! Needs root and the packages that `cargo xtask test` installs.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it measured"
)]

use std::time::Duration;

use serde_json::{Value, json};
use xtask::lab::stock_server::{NETWORK, Orders, StockServer};

const CALLS: u64 = 6;

fn run(server: &StockServer, tool: &str, words: &[&str]) -> Value {
    let mut command = server.tool(tool).unwrap();
    let calls = CALLS.to_string();
    let output = command
        .args(["--calls", &calls])
        .args(words)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{tool}: {error}: {errors}\n{}", server.log())
    });
    println!("{tool}: {report}");
    report
}

/// Set-ups, packets through calls, and calls that end in every way, with encryption.
#[test]
fn every_tool_works_with_pptpd() {
    let orders = Orders {
        user: "alice".to_owned(),
        password: "correct horse".to_owned(),
        calls: 60,
        options: vec!["require-mppe-128".to_owned()],
    };
    let server = StockServer::start(&orders, Duration::from_secs(240)).unwrap();

    let storm = run(&server, "storm", &["--outstanding", "2"]);
    assert_eq!(storm["up"], json!(CALLS), "{storm}\n{}", server.log());

    let network = NETWORK.to_string();
    let words = ["--network", &network, "--rate", "50", "--seconds", "2"];
    let flow = run(&server, "flow", &words);
    assert_eq!(flow["calls"]["up"], json!(CALLS), "{flow}");
    for way in ["up", "down"] {
        assert_eq!(
            flow["flows"]["ways"][way]["verified"],
            json!(CALLS),
            "{way}: {flow}\n{}",
            server.log()
        );
    }

    let words = ["--seconds", "15", "--every", "5", "--seed", "1"];
    let monkey = run(&server, "monkey", &words);
    assert_eq!(monkey["back"], json!(CALLS), "{monkey}\n{}", server.log());
    assert!(monkey["monkey"]["strikes"].as_u64().unwrap() > 0);
}
