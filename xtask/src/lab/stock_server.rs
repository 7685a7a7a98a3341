//! The stock server, pptpd and pppd (Poptop), in a guest: what the load tester is tried against that is not ours.
//!
//! ```text
//!  client                     guest in the namespace "server"
//!  10.7.0.2      c0 ---- s0   10.7.0.1       pptpd, calls have 10.20.0.1 and 10.20.1.1 to 10.20.1.N
//!  203.0.113.90  n1 ---- s1   203.0.113.89
//! ```
//!
//! The client's second way leads behind the server: both ends of what passes through calls are in one namespace, with
//! one clock.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::guest::{Card, Guest, Plan, Transport};
use super::netns::{Lab, Namespace};
use super::{binary, road, until};

/// The client's address behind the server.
pub const NETWORK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 90);
/// The guest's address on that way.
const BEHIND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 89);
/// The guest's end of all calls.
const INNER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// Calls that pptpd can number.
const MOST_CALLS: u8 = 254;

/// What the guest says when calls may come.
const READY: &str = "ready";

/// pptpd in its guest.
#[derive(Debug)]
pub struct StockServer {
    /// Where calls come from, and what passed through them goes to.
    pub client: Namespace,
    guest: Guest,
    orders: Orders,
    // Dropped last.
    _server: Namespace,
    _lab: Lab,
}

/// What pptpd shall be (`/host/server.json`).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
    /// Calls that it takes at a time, at most 254.
    pub calls: u8,
    /// pppd's options besides those that are always there: login by MS-CHAPv2 alone, no compression.
    pub options: Vec<String>,
}

impl StockServer {
    /// Boots the guest and waits until pptpd listens. After `limit` the guest is killed, whatever it does.
    pub fn start(orders: &Orders, limit: Duration) -> Result<Self> {
        if !(1..=MOST_CALLS).contains(&orders.calls) {
            bail!("pptpd can number 1 to {MOST_CALLS} calls");
        }
        let lab = Lab::new()?;
        let (client, server) = (lab.namespace("client")?, lab.namespace("server")?);
        for (ours, address, theirs) in [
            (road::CLIENT_INTERFACE, format!("{}/24", road::CLIENT), "s0"),
            ("n1", format!("{NETWORK}/30"), "s1"),
        ] {
            client.veth(ours, &server, theirs, 1)?;
            client.ip(&format!("addr add {address} dev {ours}"))?;
        }
        for network in road::INNER {
            client.ip(&format!("route add {network} via {BEHIND}"))?;
        }
        let card = |interface: &str, address: String| Card {
            interface: interface.to_owned(),
            transport: Transport::Raw,
            address,
            gateway: None,
            mtu: 1500,
        };
        let plan = Plan {
            name: "pptpd".to_owned(),
            cards: vec![
                card("s0", format!("{}/24", road::SERVER)),
                card("s1", format!("{BEHIND}/30")),
            ],
            command: [
                &*binary("xtask")?.to_string_lossy(),
                "lab",
                "serve",
                "/host/server.json",
            ]
            .map(str::to_owned)
            .to_vec(),
            files: vec![("server.json".to_owned(), serde_json::to_string(orders)?)],
            limit,
        };
        let mut this = Self {
            guest: Guest::start(&server, &plan)?,
            client,
            orders: orders.clone(),
            _server: server,
            _lab: lab,
        };
        until("pptpd listens", Duration::from_secs(60), || {
            let ready = this.guest.new_lines().iter().any(|line| line == READY);
            if !ready && let Some(ended) = this.guest.ended()? {
                bail!("pptpd did not start:\n{}", ended.output);
            }
            Ok(ready.then_some(()))
        })?;
        Ok(this)
    }

    /// turnpike-bench with a tool's name, the server, and whom to log in as; more arguments may follow.
    pub fn tool(&self, tool: &str) -> Result<Command> {
        let mut command = self.client.command(binary("turnpike-bench")?);
        command
            .args([tool, &road::SERVER.to_string(), "--json"])
            .args(["--user", &self.orders.user])
            .args(["--password", &self.orders.password]);
        Ok(command)
    }

    /// What pptpd and its pppds wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.guest.directory().join("pptpd.log")).unwrap_or_default()
    }
}

/// Inside the guest: runs pptpd as the file orders, until it ends.
pub fn serve(orders: &Path) -> Result<()> {
    let orders: Orders =
        serde_json::from_slice(&fs::read(orders).with_context(|| orders.display().to_string())?)?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    fs::create_dir_all("/etc/ppp")?;
    fs::write(
        "/etc/ppp/chap-secrets",
        format!("\"{}\" * \"{}\" *\n", orders.user, orders.password),
    )?;
    let mut options = "auth\nlock\nnodefaultroute\nnobsdcomp\nnodeflate\nnovj\nnovjccomp\n\
        require-mschap-v2\nrefuse-pap\nrefuse-chap\nrefuse-mschap\nlogfile /host/pptpd.log\n"
        .to_owned();
    for option in &orders.options {
        options += &format!("{option}\n");
    }
    fs::write("/run/pppd-options", options)?;
    let [a, b, c, _] = INNER.octets();
    fs::write(
        "/run/pptpd.conf",
        format!(
            "option /run/pppd-options\nconnections {calls}\nlocalip {INNER}\nremoteip {a}.{b}.{}.1-{calls}\nnoipparam\n",
            c + 1,
            calls = orders.calls,
        ),
    )?;
    let mut pptpd = Command::new("/usr/sbin/pptpd")
        .args(["-f", "-c", "/run/pptpd.conf"])
        .spawn()
        .context("cannot start pptpd")?;
    until("pptpd listens", Duration::from_secs(20), || {
        // Column 2 is the local address, column 4 the state: 06BB is port 1723, and 0A listens.
        let listens = fs::read_to_string("/proc/net/tcp")?.lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            words.next().is_some_and(|local| local.ends_with(":06BB")) && words.nth(1) == Some("0A")
        });
        if let Some(status) = pptpd.try_wait()? {
            bail!("pptpd ended: {status}");
        }
        Ok(listens.then_some(()))
    })?;
    say(READY);
    let status = pptpd.wait()?;
    bail!("pptpd ended: {status}");
}

#[allow(clippy::print_stdout, reason = "what the guest's starter waits for")]
fn say(line: &str) {
    println!("{line}");
}
