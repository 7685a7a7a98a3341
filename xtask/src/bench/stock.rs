//! turnpike-bench against a server that is not ours: pptpd, in a guest.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::storms::save;
use crate::lab::stock_server::{NETWORK, Orders, StockServer};

/// Runs storm, flow and monkey; their reports lie in the folder afterwards.
pub fn run(folder: &Path, quick: bool) -> Result<()> {
    let orders = Orders {
        user: "alice".to_owned(),
        password: "correct horse".to_owned(),
        calls: 100,
        options: vec!["require-mppe-128".to_owned()],
    };
    let server = StockServer::start(&orders, Duration::from_secs(600))?;
    let network = NETWORK.to_string();
    let (storm, seconds, monkey) = if quick {
        ("10", "2", "10")
    } else {
        ("50", "10", "40")
    };
    let runs: [(&str, &[&str]); 3] = [
        // A guest is slow: as many at a time as it answers before they give up.
        ("storm", &["--calls", storm, "--outstanding", "8"]),
        (
            "flow",
            &[
                "--calls",
                "10",
                "--network",
                &network,
                "--rate",
                "200",
                "--size",
                "64,1400,imix",
                "--seconds",
                seconds,
            ],
        ),
        (
            "monkey",
            // What a call that lost power had is free again only when pppd has noticed.
            &["--calls", "10", "--every", "10", "--seconds", monkey],
        ),
    ];
    for (name, words) in runs {
        let report =
            tool(&server, name, words).with_context(|| format!("pptpd:\n{}", last(&server)))?;
        save(folder, name, &report)?;
    }
    Ok(())
}

/// That something was lost, or a call with it, is part of a report, and no fault of the run.
fn tool(server: &StockServer, name: &str, words: &[&str]) -> Result<Value> {
    let output = server.tool(name)?.args(words).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "turnpike-bench {name} measured nothing ({}): {}",
        output.status,
        errors.trim()
    );
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("turnpike-bench {name} printed no report: {}", errors.trim()))
}

fn last(server: &StockServer) -> String {
    let log = server.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
