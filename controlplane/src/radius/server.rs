//! One server: requests on their way to it, and whether it lives.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use core::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{info, warn};
use turnpike_protocol::radius::{Builder, Code, Packet, Seal, TooLong};

use super::lane::{IDENTIFIERS, Lane, Lease, Noted};
use super::settings::{Purpose, ServerSettings};
use super::{Answer, Counts, Fill};

/// The most sockets for one server: so many times 256 requests wait for answers at once, and further ones for their turn.
const MAX_LANES: usize = 64;

/// RFC 5080 §2.2.1: no wait is longer (MRT).
const MAX_WAIT: Duration = Duration::from_secs(16);

/// What the readers of all sockets know of their server.
pub(super) struct Common {
    pub(super) settings: ServerSettings,
    pub(super) target: SocketAddr,
    pub(super) counts: Arc<Counts>,
    purpose: Purpose,
    origin: Instant,
    /// When the last answer that was believed came, in milliseconds since `origin`, plus 1; 0: never.
    heard: AtomicU64,
    /// Changes whenever it dies or lives again.
    dead: watch::Sender<bool>,
}

impl Common {
    /// An answer that was believed has come.
    pub(super) fn heard(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now.saturating_add(1), Ordering::Relaxed);
        let revived = self
            .dead
            .send_if_modified(|dead| core::mem::replace(dead, false));
        if revived {
            self.counts.revived.add();
            info!(server = self.settings.name, address = %self.target, "the RADIUS server answers again");
        }
    }

    fn heard_since(&self, start: Instant) -> bool {
        let since = start.saturating_duration_since(self.origin).as_millis();
        u128::from(self.heard.load(Ordering::Relaxed)) > since
    }
}

/// Why a server gave no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// None came that was believed; what came instead.
    Unanswered(Noted),
    /// Another request found out that it is dead.
    Died,
    /// Nothing could be sent.
    Machine,
    /// The request is too long.
    TooLong,
}

impl From<TooLong> for Fault {
    fn from(_: TooLong) -> Self {
        Self::TooLong
    }
}

/// One server.
pub(super) struct Server {
    common: Arc<Common>,
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// As many permits as there may be requests on their way.
    room: Semaphore,
    /// Itself, for the task that asks whether it lives.
    own: Weak<Self>,
}

impl Server {
    pub(super) fn new(
        settings: ServerSettings,
        purpose: Purpose,
        counts: Arc<Counts>,
    ) -> Arc<Self> {
        let common = Arc::new(Common {
            target: settings.target(purpose),
            settings,
            counts,
            purpose,
            origin: Instant::now(),
            heard: AtomicU64::new(0),
            dead: watch::Sender::new(false),
        });
        Arc::new_cyclic(|own| Self {
            common,
            lanes: Mutex::default(),
            room: Semaphore::new(MAX_LANES * IDENTIFIERS),
            own: own.clone(),
        })
    }

    pub(super) fn settings(&self) -> &ServerSettings {
        &self.common.settings
    }

    pub(super) fn is_dead(&self) -> bool {
        *self.common.dead.borrow()
    }

    /// Sends a request until it is answered, as often as the settings say. With `leave` it is given up as soon as the server
    /// is known to be dead.
    pub(super) async fn ask(
        &self,
        code: Code,
        fill: &Fill<'_>,
        leave: bool,
    ) -> Result<Answer, Fault> {
        let tries = self.common.settings.tries.max(1);
        self.exchange(code, fill, tries, leave).await
    }

    async fn exchange(
        &self,
        code: Code,
        fill: &Fill<'_>,
        tries: u8,
        leave: bool,
    ) -> Result<Answer, Fault> {
        // Closed never.
        let _room = self.room.acquire().await.map_err(|_| Fault::Machine)?;
        let lease = self.lease().map_err(|error| {
            warn!(server = self.common.settings.name, %error, "cannot ask the RADIUS server");
            Fault::Machine
        })?;
        let octets = self.request(code, lease.identifier, fill)?;
        let authenticator = *Packet::parse(&octets)
            .map_err(|_| Fault::TooLong)?
            .authenticator();
        let mut answer = lease.wait(code, authenticator);
        let mut dead = self.common.dead.subscribe();
        let counts = &self.common.counts;
        let start = Instant::now();
        let mut wait = self.common.settings.timeout;
        for attempt in 0..tries {
            match attempt {
                0 => counts.requests.add(),
                _ => counts.repeated.add(),
            }
            if let Err(error) = lease.send(&octets).await {
                // It may be gone when the next try is due: a route, or a buffer that was full.
                tracing::debug!(server = self.common.settings.name, %error, "RADIUS request");
            }
            let until = Instant::now() + jittered(wait);
            wait = (wait * 2).min(MAX_WAIT);
            tokio::select! {
                biased;
                answer = &mut answer => {
                    let octets = answer.map_err(|_| Fault::Machine)?;
                    return Ok(Answer {
                        octets,
                        authenticator,
                        server: self.common.settings.clone(),
                    });
                }
                () = tokio::time::sleep_until(until) => {}
                changed = dead.wait_for(|dead| *dead), if leave => {
                    drop(changed);
                    return Err(Fault::Died);
                }
            }
        }
        counts.unanswered.add();
        if code != Code::STATUS_SERVER && !self.common.heard_since(start) {
            self.bury();
        }
        Err(Fault::Unanswered(lease.noted()))
    }

    fn request(&self, code: Code, identifier: u8, fill: &Fill<'_>) -> Result<Vec<u8>, Fault> {
        let secret = &self.common.settings.secret;
        let builder = if code.is_random() {
            let mut authenticator = [0; 16];
            getrandom::fill(&mut authenticator).map_err(|error| {
                warn!(%error, "no randomness");
                Fault::Machine
            })?;
            let seal = Seal::Random(authenticator);
            Builder::new(code, identifier, seal, secret)
        } else {
            Builder::unsigned(code, identifier, Seal::Computed, secret)
        };
        Ok(fill(builder).finish()?)
    }

    /// An identifier on a socket that has one left.
    fn lease(&self) -> io::Result<Lease> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = lanes.iter().find_map(Lane::lease) {
            return Ok(lease);
        }
        let lane = Arc::new(Lane::open(self.common.clone())?);
        lanes.push(lane.clone());
        lane.lease()
            .ok_or_else(|| io::Error::other("a new socket has no identifier"))
    }

    /// Nothing has come from it for as long as a request was tried.
    fn bury(&self) {
        let buried = self
            .common
            .dead
            .send_if_modified(|dead| !core::mem::replace(dead, true));
        if !buried {
            return;
        }
        let Common {
            settings,
            target,
            counts,
            purpose,
            ..
        } = &*self.common;
        counts.died.add();
        warn!(
            server = settings.name,
            address = %target,
            ?purpose,
            "the RADIUS server answers nothing: is its address right, does it know this machine as a client, with the same secret, \
             and does nothing block UDP on the way? A server says nothing to a client with another secret"
        );
        tokio::spawn(watch_over(self.own.clone(), settings.dead_time));
    }

    /// Asks a dead server whether it lives.
    async fn probe(&self) {
        if self.common.settings.status_server {
            self.common.counts.probes.add();
            // The answer itself revives it.
            let _ = self
                .exchange(Code::STATUS_SERVER, &|builder| builder, 1, false)
                .await;
        } else {
            // Nobody can tell but a request, which the next one will be.
            let tried = self
                .common
                .dead
                .send_if_modified(|dead| core::mem::replace(dead, false));
            if tried {
                info!(
                    server = self.common.settings.name,
                    "the RADIUS server is tried again"
                );
            }
        }
    }
}

/// Asks from time to time until the server lives, or is gone.
async fn watch_over(server: Weak<Server>, every: Duration) {
    loop {
        tokio::time::sleep(jittered(every)).await;
        let Some(server) = server.upgrade() else {
            return;
        };
        if server.is_dead() {
            server.probe().await;
        }
        if !server.is_dead() {
            return;
        }
    }
}

/// A tenth more or less (RFC 5080 §2.2.1), so that what began together does not go on together.
fn jittered(time: Duration) -> Duration {
    let mut octets = [0; 2];
    // Without randomness it is just not jittered.
    let _ = getrandom::fill(&mut octets);
    let share = f64::from(u16::from_ne_bytes(octets)) / f64::from(u16::MAX);
    time.mul_f64(0.9 + 0.2 * share)
}
