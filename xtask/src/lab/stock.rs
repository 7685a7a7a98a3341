//! The stock client, pptp-linux and pppd, seen from outside its guest.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::guest::{Card, Guest, Plan, Transport};
use super::inside::{News, StockCall};
use super::netns::Namespace;
use super::transfer::Moved;
use super::{binary, road};

/// A guest that makes one call.
#[derive(Debug)]
pub struct StockClient {
    guest: Guest,
    report: Report,
}

/// What has been heard of a call so far.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Whether the target answered before the call was up.
    pub reached_before: Option<bool>,
    /// Addresses and MTU, once the call is up.
    pub up: Option<Up>,
    /// Pings sent and answered, and their average round trip in milliseconds.
    pub pinged: Option<(u32, u32, f64)>,
    /// Streams that were moved, as the guest saw them.
    pub moved: Vec<Moved>,
    /// pppd's exit status and how long hanging up took, in milliseconds.
    pub down: Option<(Option<i32>, u64)>,
    /// The call did not come up; pppd's exit status if it ended.
    pub failed: Option<Option<i32>>,
}

/// A call that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Up {
    /// From pppd's start, in milliseconds.
    pub setup_ms: u64,
    /// The guest's inner address.
    pub address: String,
    /// The server's inner address.
    pub server_address: String,
    /// MTU of the guest's interface.
    pub mtu: u32,
}

/// MPPE as pppd's log shows it, in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mppe {
    /// Key length: 40, 56 or 128.
    pub bits: u8,
    /// Keys change with each packet.
    pub stateless: bool,
}

impl StockClient {
    /// Boots a guest in `namespace` that owns the client's end of the [`road`], and makes it call. `mtu` is that of the
    /// access network as the guest sees it.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        mtu: u16,
        call: &StockCall,
        limit: Duration,
    ) -> Result<Self> {
        let program = binary("xtask")?;
        let plan = Plan {
            name: name.to_owned(),
            cards: vec![Card {
                interface: road::CLIENT_INTERFACE.to_owned(),
                transport: Transport::Raw,
                address: format!("{}/24", road::CLIENT),
                gateway: None,
                mtu,
            }],
            command: [
                &*program.to_string_lossy(),
                "lab",
                "call",
                "/host/call.json",
            ]
            .map(str::to_owned)
            .to_vec(),
            files: vec![("call.json".to_owned(), serde_json::to_string(call)?)],
            limit,
        };
        Ok(Self {
            guest: Guest::start(namespace, &plan)?,
            report: Report::default(),
        })
    }

    /// Takes in what the guest has said since the last call; `watch` hears each piece.
    pub fn listen(&mut self, watch: &mut dyn FnMut(&News)) -> &Report {
        for line in self.guest.new_lines() {
            // Lines that are not news are error messages; they are shown when the guest ends badly.
            let Ok(news) = serde_json::from_str::<News>(&line) else {
                continue;
            };
            watch(&news);
            match news {
                News::Up {
                    setup_ms,
                    address,
                    server_address,
                    mtu,
                } => {
                    self.report.up = Some(Up {
                        setup_ms,
                        address,
                        server_address,
                        mtu,
                    });
                }
                News::Before { reached } => self.report.reached_before = Some(reached),
                News::Failed { status } => self.report.failed = Some(status),
                News::Pinged {
                    sent,
                    received,
                    average_ms,
                } => self.report.pinged = Some((sent, received, average_ms)),
                News::Moving { .. } => {}
                News::Moved { moved, .. } => self.report.moved.push(moved),
                News::Down { status, after_ms } => self.report.down = Some((status, after_ms)),
            }
        }
        &self.report
    }

    /// Waits until `wanted` is true of the report. An error, with pppd's last lines, when the guest ends before that.
    pub fn wait_until(
        &mut self,
        what: &str,
        mut watch: impl FnMut(&News),
        wanted: impl Fn(&Report) -> bool,
    ) -> Result<&Report> {
        loop {
            let ended = self.guest.ended().with_context(|| self.last_lines())?;
            self.listen(&mut watch);
            if wanted(&self.report) {
                return Ok(&self.report);
            }
            if let Some(ended) = ended {
                bail!(
                    "the stock client ended (status {}) before {what}:\n{}\n{}",
                    ended.status,
                    ended.output,
                    self.last_lines()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of the guest; the whole report. A guest whose driver failed is an error.
    pub fn finish(&mut self, mut watch: impl FnMut(&News)) -> Result<Report> {
        loop {
            let ended = self.guest.ended().with_context(|| self.last_lines())?;
            self.listen(&mut watch);
            if let Some(ended) = ended {
                if ended.status != 0 {
                    bail!(
                        "the stock client failed (status {}):\n{}\n{}",
                        ended.status,
                        ended.output,
                        self.last_lines()
                    );
                }
                return Ok(self.report.clone());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// pppd's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.guest.directory().join("pppd.log")).unwrap_or_default()
    }

    /// The directory with pppd's log.
    pub fn directory(&self) -> &Path {
        self.guest.directory()
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!(
            "pppd.log:\n{}",
            lines[lines.len().saturating_sub(30)..].join("\n")
        )
    }
}

/// What pppd's debug log says it receives and sends with: the options that it acknowledged are what it sends with, the ones
/// of its own that were acknowledged are what it receives with (RFC 1962 §2.1: a request speaks of its sender's receiving).
pub fn negotiated(log: &str) -> (Option<Mppe>, Option<Mppe>) {
    let last = |prefix: &str| {
        log.lines()
            .rfind(|line| line.contains(prefix))
            .and_then(read_mppe)
    };
    (last("rcvd [CCP ConfAck"), last("sent [CCP ConfAck"))
}

/// Reads pppd's `<mppe +H -M +S -L -D -C>`.
fn read_mppe(line: &str) -> Option<Mppe> {
    let bits = line.split("<mppe ").nth(1)?.split('>').next()?;
    let bits: Vec<&str> = bits.split_whitespace().collect();
    Some(Mppe {
        bits: if bits.contains(&"+S") {
            128
        } else if bits.contains(&"+M") {
            56
        } else if bits.contains(&"+L") {
            40
        } else {
            return None;
        },
        stateless: bits.contains(&"+H"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_of_each_direction_is_read_from_the_log() {
        let log = "sent [CCP ConfReq id=0x1 <mppe +H -M +S +L -D -C>]\n\
                   rcvd [CCP ConfNak id=0x1 <mppe +H -M +S -L -D -C>]\n\
                   rcvd [CCP ConfReq id=0x1 <mppe -H -M -S +L -D -C>]\n\
                   sent [CCP ConfAck id=0x1 <mppe -H -M -S +L -D -C>]\n\
                   sent [CCP ConfReq id=0x2 <mppe +H -M +S -L -D -C>]\n\
                   rcvd [CCP ConfAck id=0x2 <mppe +H -M +S -L -D -C>]\n";
        let receive = Mppe {
            bits: 128,
            stateless: true,
        };
        let transmit = Mppe {
            bits: 40,
            stateless: false,
        };
        assert_eq!(negotiated(log), (Some(receive), Some(transmit)));
        assert_eq!(negotiated("rcvd [CCP ConfAck id=0x1]\n"), (None, None));
    }
}
