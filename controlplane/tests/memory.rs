//! What a call that does nothing takes of the control plane's memory: its control connection, its PPP, its task, its places
//! in every book, accounting's among them. TCP in the kernel is not counted, and a worker's share has a test of its own.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of it is test"
)]

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rig::{PASSWORD, Rig, Saw};
use turnpike_controlplane::accounting::{Books, Stations};
use turnpike_controlplane::config::Accounting;
use turnpike_controlplane::listener::Limits;
use turnpike_controlplane::tunnel::Stage;

/// Octets that are allocated now, as they were asked for.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is done by the system's allocator; counting touches no memory of its callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Octets at most. With less than 1 KiB in a worker and what an allocator rounds up, a call is below 8 KiB then.
const LIMIT: usize = 6 * 1024;

/// Calls that are counted, and those before them, after which everything is there that is made once. Tables double: from
/// one to the other they do so as often as the calls do.
const CALLS: usize = 600;
const BEFORE: usize = 200;

/// Clients that dial at once.
const TOGETHER: usize = 20;

#[tokio::test]
async fn an_idle_call_takes_little() {
    // Spans are part of it.
    tracing_subscriber::fmt().with_writer(std::io::sink).init();
    let limits = Limits {
        per_source: 1000,
        total: 1000,
    };
    let directory = tempfile::tempdir().unwrap();
    let accounting = Accounting {
        file: directory.path().join("ledger"),
        keep: None,
        checkpoint: Duration::from_secs(60),
        interim: Some(Duration::from_secs(600)),
        failures: true,
        mandatory: false,
        radius: true,
        stations: Stations::default(),
    };
    let books = Books::open(&accounting, "turnpike", true).unwrap();
    let rig = Rig::accounting(limits, 1000, Some(Arc::new(books))).await;
    let mut idle: Vec<TcpStream> = Vec::with_capacity(BEFORE + CALLS);
    dial(&rig, BEFORE, &mut idle).await;
    let before = HELD.load(Ordering::Relaxed);
    dial(&rig, CALLS, &mut idle).await;
    let each = HELD.load(Ordering::Relaxed).saturating_sub(before) / CALLS;
    println!("{each} octets for an idle call, without its worker's");
    assert!(each < LIMIT, "{each} octets for an idle call");
    // One that counts nothing counts wrongly.
    assert!(each > 1024, "{each} octets for an idle call");
}

/// Clients that dial, come up, and are then nothing but a socket.
async fn dial(rig: &Rig, calls: usize, idle: &mut Vec<TcpStream>) {
    let already = idle.len();
    for first in (already..already + calls).step_by(TOGETHER) {
        let dials = (first..first + TOGETHER).map(async |n| {
            let from = Ipv4Addr::new(127, 0, 0, 2 + (n % 8) as u8);
            let mut client = rig.dial(from, n as u16, PASSWORD).await;
            client.until(|saw| matches!(saw, Saw::Up(_))).await;
            rig.forget(client)
        });
        idle.extend(join_all(dials).await);
    }
    rig.until("all calls are up, and nothing waits", |rig| {
        let all = rig.shared.sessions.all();
        all.len() == idle.len()
            && all.iter().all(|entry| entry.snapshot.stage == Stage::Up)
            && rig.shared.admission.is_empty()
            && rig.shared.applicants.is_empty()
    })
    .await;
    // The last acknowledgements and what is freed by them.
    tokio::time::sleep(Duration::from_millis(100)).await;
}
