//! Running a target over and over, and keeping what breaks it.

use std::collections::HashSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::mutate::{Random, mutate};
use super::{Target, Trace, target};

/// One run that takes longer than this is a failure: somebody could keep us busy.
const SLOW: Duration = Duration::from_secs(2);
/// One run that takes longer than this never ends.
const STUCK: Duration = Duration::from_secs(30);
/// More inputs than this are not kept as seeds.
const MAX_CORPUS: usize = 4096;
/// How many tries a failing input is shrunk with.
const SHRINKING: usize = 2000;

/// What a fuzzing session came to.
pub struct Report {
    /// The target.
    pub name: &'static str,
    /// Runs.
    pub executions: u64,
    /// How long it took.
    pub time: Duration,
    /// Seeds at the start, and at the end with the inputs that made something new happen.
    pub seeds: (usize, usize),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.executions as f64 / self.time.as_secs_f64().max(1e-9);
        let (before, after) = self.seeds;
        write!(
            f,
            "{:<16} {:>9} runs {rate:>9.0}/s, seeds {before:>4} -> {after:>4}",
            self.name, self.executions
        )
    }
}

/// Runs `target` for `time` with inputs that `seed` decides.
///
/// # Errors
/// Names the seed and the file that a failing input was saved in.
pub fn fuzz(target: Target, time: Duration, seed: u64) -> Result<Report> {
    let current = Arc::new(Mutex::new(Vec::new()));
    let shared = current.clone();
    let (sender, receiver) = mpsc::channel();
    let session = thread::Builder::new()
        .name(target.name.to_owned())
        .spawn(move || {
            // The receiver may have given up on us.
            let _ = sender.send(session(target, time, seed, &shared));
        })?;
    let started = Instant::now();
    let outcome = loop {
        if let Ok(outcome) = receiver.recv_timeout(Duration::from_secs(1)) {
            break outcome;
        }
        // A session that has ended without a word has panicked outside the target.
        if session.is_finished() {
            bail!("{}: the fuzzer itself failed, seed {seed}", target.name);
        }
        if started.elapsed() > time + STUCK {
            let input = current
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            break Err(Failure {
                input,
                what: "it does not end".to_owned(),
            });
        }
    };
    match outcome {
        Ok(report) => Ok(report),
        Err(Failure { input, what }) => {
            let path = save(target.name, &input)?;
            bail!(
                "{}: {what}\nseed {seed}, input of {} octets saved in {}",
                target.name,
                input.len(),
                path.display()
            )
        }
    }
}

struct Failure {
    input: Vec<u8>,
    what: String,
}

fn session(
    target: Target,
    time: Duration,
    seed: u64,
    current: &Mutex<Vec<u8>>,
) -> Result<Report, Failure> {
    let mut random = Random(seed);
    let mut corpus = (target.seeds)();
    let before = corpus.len();
    let mut seen = HashSet::new();
    let mut executions = 0;
    let mut run = |input: &[u8]| {
        {
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            current.clear();
            current.extend_from_slice(input);
        }
        executions += 1;
        match attempt(target, input) {
            Ok(trace) => Ok(seen.insert(trace.digest())),
            Err(Harm::Panic(what)) => Err(Failure {
                input: shrink(target, input.to_vec()),
                what,
            }),
            // Shrinking would take as long again for each try.
            Err(Harm::Slow(took)) => Err(Failure {
                input: input.to_vec(),
                what: format!("took {took:?}"),
            }),
        }
    };
    let started = Instant::now();
    for input in &corpus {
        run(input)?;
    }
    if corpus.is_empty() {
        corpus.push(Vec::new());
    }
    while started.elapsed() < time {
        for _ in 0..16 {
            let input = mutate(&corpus, &mut random);
            if run(&input)? && corpus.len() < MAX_CORPUS {
                corpus.push(input);
            }
        }
    }
    Ok(Report {
        name: target.name,
        executions,
        time: started.elapsed(),
        seeds: (before, corpus.len()),
    })
}

enum Harm {
    Panic(String),
    Slow(Duration),
}

/// One run; more when it is slow, because that may be the machine's fault.
fn attempt(target: Target, input: &[u8]) -> Result<Trace, Harm> {
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
        fastest = fastest.min(started.elapsed());
        match outcome {
            Ok(trace) if fastest <= SLOW => return Ok(trace),
            Ok(_) => {}
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
                return Err(Harm::Panic(
                    text.unwrap_or_else(|| "it panicked".to_owned()),
                ));
            }
        }
    }
    Err(Harm::Slow(fastest))
}

/// Leaves out what the failure does not need.
fn shrink(target: Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut tries = 0;
    let mut piece = input.len() / 2;
    while piece > 0 && tries < SHRINKING {
        let mut at = 0;
        while at + piece <= input.len() && tries < SHRINKING {
            let mut shorter = input.clone();
            shorter.drain(at..at + piece);
            tries += 1;
            if attempt(target, &shorter).is_err() {
                input = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    input
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

fn save(name: &str, input: &[u8]) -> Result<PathBuf> {
    let folder = folder().join(name);
    std::fs::create_dir_all(&folder)?;
    let mut digest = Trace::default();
    digest.note(input);
    let path = folder.join(format!("{:016x}.bin", digest.digest()));
    std::fs::write(&path, input).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// The inputs that once broke something: target and file.
///
/// # Errors
/// The folder cannot be read, or holds something for a target that does not exist.
pub fn regressions() -> Result<Vec<(Target, PathBuf)>> {
    let mut found = Vec::new();
    if !folder().exists() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(folder())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let target = target(&name).with_context(|| format!("{name} is no target"))?;
        for file in std::fs::read_dir(entry.path())? {
            found.push((target, file?.path()));
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    Ok(found)
}

/// Runs a saved input once.
///
/// # Errors
/// It fails still.
pub fn replay(target: Target, path: &Path) -> Result<()> {
    let input = std::fs::read(path)?;
    match attempt(target, &input) {
        Ok(_) => Ok(()),
        Err(Harm::Panic(what)) => bail!("{}: {what}", path.display()),
        Err(Harm::Slow(took)) => bail!("{}: took {took:?}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(run: fn(&[u8]) -> Trace) -> Result<Report, Failure> {
        let seeds = || vec![b"some words to begin with".to_vec()];
        let target = Target {
            name: "planted",
            run,
            seeds,
        };
        session(target, Duration::from_secs(20), 7, &Mutex::new(Vec::new()))
    }

    #[test]
    fn finds_a_planted_fault_and_shrinks_it() {
        let failure = run(|input| {
            let mut trace = Trace::default();
            let at = |at: usize, octet| input.get(at) == Some(&octet);
            // Three steps, each of which only new behaviour leads to.
            trace.note(at(3, 0xff));
            trace.note(at(3, 0xff) && at(4, 0x80));
            assert!(!(at(3, 0xff) && at(4, 0x80) && at(0, 0)), "planted");
            trace
        })
        .err()
        .unwrap();
        assert_eq!(failure.what, "planted");
        assert_eq!(failure.input.len(), 5);
        assert_eq!(
            (failure.input[0], &failure.input[3..]),
            (0, &[0xff, 0x80][..])
        );
    }

    #[test]
    fn finds_what_is_slow() {
        let failure = run(|input| {
            if input.len() > 40 {
                thread::sleep(SLOW + Duration::from_millis(1));
            }
            Trace::default()
        })
        .err()
        .unwrap();
        assert!(failure.what.starts_with("took "), "{}", failure.what);
    }
}
