//! Child processes whose output lies in files and which end with their guard.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::undo::{Ticket, Undo, kill_group};

/// A running child. It leads a process group of its own, so that a Ctrl-C at the terminal reaches only us and we can
/// end things in order; it dies with us when we are killed outright.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    ticket: Option<Ticket>,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `directory/name.out` and `directory/name.err`.
    pub fn start(name: &str, command: &Command, directory: &Path) -> Result<Self> {
        let out = directory.join(format!("{name}.out"));
        let err = directory.join(format!("{name}.err"));
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        // util-linux' setpriv asks the kernel to kill the child when we end, without unsafe code between fork and exec.
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        let child = wrapped
            .stdin(Stdio::null())
            .stdout(create(&out)?)
            .stderr(create(&err)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({command:?})"))?;
        let ticket = Ticket::new(Undo::Process(child.id()));
        Ok(Self {
            name: name.to_owned(),
            child,
            ended: None,
            ticket: Some(ticket),
            out,
            err,
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote to standard output so far.
    pub fn output(&self) -> String {
        read(&self.out)
    }

    /// Everything it wrote to standard error so far.
    pub fn errors(&self) -> String {
        read(&self.err)
    }

    /// Its exit status when it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
            if self.ended.is_some()
                && let Some(ticket) = self.ticket.take()
            {
                ticket.forget();
            }
        }
        Ok(self.ended)
    }

    /// Waits until a line of its output or its errors satisfies `wanted`, and gives that line. An error when the process ends
    /// first or `limit` passes; the error shows the last lines.
    pub fn wait_for_line(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let ended = self.ended()?;
            for text in [self.output(), self.errors()] {
                if let Some(line) = text.lines().find(|line| wanted(line)) {
                    return Ok(line.to_owned());
                }
            }
            if let Some(status) = ended {
                bail!("{} ended early ({status}):\n{}", self.name, self.tail());
            }
            if Instant::now() >= end {
                bail!(
                    "{} did not say it within {limit:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!(
                    "{} did not end within {limit:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal to the process (not its group).
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// SIGTERM, then waits at most `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// SIGKILL, and waits.
    pub fn kill(&mut self) -> Result<()> {
        kill_group(self.child.id(), Signal::KILL);
        self.wait(Duration::from_secs(5)).map(drop)
    }

    /// The last lines of output and errors, for messages.
    pub fn tail(&self) -> String {
        let text = format!("{}{}", self.output(), self.errors());
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(30);
        lines[from..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(Some(_))) {
            return;
        }
        kill_group(self.child.id(), Signal::KILL);
        // It was killed: this wait is short.
        let _ = self.child.wait();
        if let Some(ticket) = self.ticket.take() {
            ticket.forget();
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Follows a file that grows line by line.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    at: u64,
}

impl Follow {
    /// From the start of `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            at: 0,
        }
    }

    /// Whole lines that were added since the last call.
    pub fn lines(&mut self) -> Vec<String> {
        let mut added = Vec::new();
        let Ok(mut file) = File::open(&self.path) else {
            return Vec::new();
        };
        if file.seek(SeekFrom::Start(self.at)).is_err() || file.read_to_end(&mut added).is_err() {
            return Vec::new();
        }
        let Some(end) = added.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        added.truncate(end + 1);
        self.at += added.len() as u64;
        String::from_utf8_lossy(&added)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// Runs `command` to its end; its standard output, or an error that shows what it wrote.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        bail!(
            "`{}` failed ({}): {}{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
