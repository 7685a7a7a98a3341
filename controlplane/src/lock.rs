//! One server per run directory.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why the run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made or written.
    #[error("cannot use the run directory {}: {source}", path.display())]
    Unusable {
        /// The directory or the file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds it.
    #[error(
        "another turnpike runs with the run directory {}: stop it, or give this one another `run_dir` in [server]",
        .0.display()
    )]
    Taken(PathBuf),
}

/// The right to a run directory. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory if need be and locks it. Waits for as long as `patience` for another process to let go:
    /// one that was killed a moment ago still has sockets to close.
    ///
    /// # Errors
    /// When it cannot be used or is locked.
    pub fn take(run_dir: &Path, patience: Duration) -> Result<Self, Error> {
        let unusable = |path: &Path, source| Error::Unusable {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(run_dir).map_err(|e| unusable(run_dir, e))?;
        let path = run_dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| unusable(&path, e))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if start.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Err(Error::Taken(run_dir.to_owned())),
                Err(TryLockError::Error(e)) => return Err(unusable(&path, e)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let run_dir = directory.path().join("run");
        let lock = Lock::take(&run_dir, Duration::ZERO).unwrap();
        let again = Lock::take(&run_dir, Duration::from_millis(30));
        assert!(matches!(again, Err(Error::Taken(_))));
        std::thread::scope(|scope| {
            let next = scope.spawn(|| Lock::take(&run_dir, Duration::from_secs(30)));
            std::thread::sleep(Duration::from_millis(50));
            drop(lock);
            next.join().unwrap().unwrap();
        });
    }
}
