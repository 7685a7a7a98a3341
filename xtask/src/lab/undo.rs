//! The list of what has to be unmade, whatever happens.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// One thing to unmake.
#[derive(Debug, Clone)]
pub enum Undo {
    /// A child process that leads its own process group: killed with all its group.
    Process(u32),
    /// A named network namespace: whoever still lives in it is killed, then it is deleted.
    Namespace(String),
    /// A directory, removed with its contents.
    Directory(PathBuf),
}

impl Undo {
    fn run(&self) {
        match self {
            Self::Process(pid) => kill_group(*pid, Signal::KILL),
            Self::Namespace(name) => delete_namespace(name),
            Self::Directory(path) => {
                // Nothing useful can be done about a directory that resists.
                let _ = std::fs::remove_dir_all(path);
            }
        }
    }
}

struct List {
    next: u64,
    entries: Vec<(u64, Undo)>,
}

static LIST: Mutex<List> = Mutex::new(List {
    next: 0,
    entries: Vec::new(),
});

/// Unmakes its entry when dropped.
#[derive(Debug)]
pub struct Ticket(u64);

impl Ticket {
    /// Writes `undo` down.
    pub fn new(undo: Undo) -> Self {
        watch_signals();
        let mut list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
        let id = list.next;
        list.next += 1;
        list.entries.push((id, undo));
        Self(id)
    }

    fn take(&self) -> Option<Undo> {
        let mut list = LIST.lock().unwrap_or_else(PoisonError::into_inner);
        let at = list.entries.iter().position(|(id, _)| *id == self.0)?;
        Some(list.entries.remove(at).1)
    }

    /// Strikes the entry from the list without unmaking it: it is gone already, or is to stay.
    pub fn forget(self) {
        drop(self.take());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(undo) = self.take() {
            undo.run();
        }
    }
}

/// Unmakes everything, the latest first.
pub fn everything() {
    loop {
        // The lock is not held while unmaking, which may take a second.
        let entry = LIST
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entries
            .pop();
        match entry {
            Some((_, undo)) => undo.run(),
            None => return,
        }
    }
}

fn watch_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                everything();
                std::process::exit(128 + signal);
            }
        });
    });
}

/// Sends `signal` to the process group that child `pid` leads, or to the child alone before it has become a leader.
pub(super) fn kill_group(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    if kill_process_group(pid, signal).is_err() {
        // It ended in between: what was wanted.
        let _ = kill_process(pid, signal);
    }
}

/// Kills whoever lives in the namespace and deletes it.
pub(super) fn delete_namespace(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .filter_map(|word| word.parse::<u32>().ok())
            .filter(|pid| *pid != std::process::id())
        {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    let _ = Command::new("ip")
        .args(["netns", "delete", name])
        .stderr(Stdio::null())
        .status();
}
