//! The built-in client, `turnpike-bench dial`, as a process.

use std::net::Ipv4Addr;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;
use serde_json::Value;

use super::netns::Namespace;
use super::process::{Follow, Process};
use super::{binary, road, server};

/// How to dial.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Who dials.
    pub user: server::User,
    /// What is dialled.
    pub server: Ipv4Addr,
    /// How many calls.
    pub calls: u32,
    /// Refuse MPPE.
    pub no_mppe: bool,
    /// More arguments, as they stand.
    pub more: Vec<String>,
}

impl Plan {
    /// One call of `user` to the [`road`]'s server, with MPPE.
    pub fn new(user: server::User) -> Self {
        Self {
            user,
            server: road::SERVER,
            calls: 1,
            no_mppe: false,
            more: Vec::new(),
        }
    }
}

/// The interface by which Linux in the client's namespace reaches the tunnel.
pub const TUNNEL_INTERFACE: &str = "tpclient0";

/// A client that is dialling or has its calls up. Dropped: killed.
#[derive(Debug)]
pub struct Client {
    process: Process,
    follow: Follow,
    /// Every line it wrote so far, as JSON.
    said: Vec<Value>,
}

impl Client {
    /// Starts dialling in `namespace`.
    pub fn start(namespace: &Namespace, name: &str, plan: &Plan) -> Result<Self> {
        let mut command = namespace.command(binary("turnpike-bench")?);
        command
            .arg("dial")
            .arg(plan.server.to_string())
            .args(["--user", &plan.user.name, "--password", &plan.user.password])
            .args(["--interface", road::CLIENT_INTERFACE])
            .args(["--host-interface", TUNNEL_INTERFACE])
            .args(["--calls", &plan.calls.to_string()])
            .arg("--json")
            .args(&plan.more);
        if plan.no_mppe {
            command.arg("--no-mppe");
        }
        let process = namespace.start(name, &command)?;
        Ok(Self {
            follow: Follow::new(&namespace.directory().join(format!("{name}.out"))),
            process,
            said: Vec::new(),
        })
    }

    /// What it said so far, one JSON value a line.
    pub fn said(&mut self) -> &[Value] {
        let new = self.follow.lines();
        self.said.extend(
            new.iter()
                .filter_map(|line| serde_json::from_str(line).ok()),
        );
        &self.said
    }

    /// Waits until `count` calls are up; their lines.
    pub fn wait_up(&mut self, count: usize, limit: Duration) -> Result<Vec<Value>> {
        let what = format!("{count} calls up");
        super::until(&what, limit, || {
            let ended = self.process.ended()?;
            let up: Vec<Value> = self
                .said()
                .iter()
                .filter(|line| line["event"] == "up")
                .cloned()
                .collect();
            if up.len() >= count {
                return Ok(Some(up));
            }
            if let Some(status) = ended {
                anyhow::bail!("turnpike-bench ended ({status}):\n{}", self.process.tail());
            }
            Ok(None)
        })
        .with_context(|| format!("turnpike-bench said:\n{}", self.process.tail()))
    }

    /// Waits for the first line about this event.
    pub fn wait_for(&mut self, event: &str, limit: Duration) -> Result<Value> {
        super::until(&format!("the event {event}"), limit, || {
            if let Some(status) = self.process.ended()? {
                anyhow::bail!("turnpike-bench ended ({status}):\n{}", self.process.tail());
            }
            Ok(self
                .said()
                .iter()
                .find(|line| line["event"] == event)
                .cloned())
        })
        .with_context(|| format!("turnpike-bench said:\n{}", self.process.tail()))
    }

    /// Waits until `count` calls have failed or ended; their lines.
    pub fn wait_over(&mut self, count: usize, limit: Duration) -> Result<Vec<Value>> {
        super::until(&format!("{count} calls over"), limit, || {
            let over: Vec<Value> = self
                .said()
                .iter()
                .filter(|line| line["event"] == "failed" || line["event"] == "ended")
                .cloned()
                .collect();
            Ok((over.len() >= count).then_some(over))
        })
        .with_context(|| format!("turnpike-bench said:\n{}", self.process.tail()))
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Hangs up (SIGINT) and waits; its exit status and last line.
    pub fn hang_up(&mut self) -> Result<(ExitStatus, Option<Value>)> {
        self.process.signal(Signal::INT)?;
        self.wait(Duration::from_secs(20))
    }

    /// Waits for its end; its exit status and last line.
    pub fn wait(&mut self, limit: Duration) -> Result<(ExitStatus, Option<Value>)> {
        let status = self.process.wait(limit)?;
        Ok((status, self.said().last().cloned()))
    }

    /// Everything it wrote.
    pub fn text(&self) -> String {
        format!("{}{}", self.process.output(), self.process.errors())
    }
}
