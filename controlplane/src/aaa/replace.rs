//! Changes a file that others read and edit, so that it is at any time either the old one or the new one, whole.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{
    AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, fchmod, fchown, flock, fsync,
    openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// The largest file that is changed, in octets.
const MAX_FILE: u64 = 16 << 20;

/// How often the change is made anew because somebody else changed the file meanwhile.
const MAX_TRIES: u32 = 8;

/// How long another process may hold the lock.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Why a file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Unchanged<E> {
    /// The change itself was refused.
    #[error("refused")]
    Refused(E),
    /// Something of the system.
    #[error("cannot {doing}: {error}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// Another process has locked it.
    #[error("another process has locked it for {} seconds", PATIENCE.as_secs())]
    Locked,
    /// Somebody else changes it all the time.
    #[error("it changes all the time")]
    Restless,
}

fn system<E, S: Into<io::Error>>(doing: &'static str) -> impl FnOnce(S) -> Unchanged<E> {
    move |error| Unchanged::System {
        doing,
        error: error.into(),
    }
}

/// Where a change stands; tests break in here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The new file is there, empty.
    Made,
    /// It is written and on disk.
    Written,
    /// The old one was found as it had been read.
    Compared,
    /// The new one has the name.
    Exchanged,
}

/// Replaces the file by what `edit` makes of its content. `edit` is asked again with what others have written
/// meanwhile. The new file has mode and owner of the old one, and is on disk before it has the name; a symbolic link
/// stays and the file that it leads to is replaced. Blocks on disk and on others' locks (`flock`).
///
/// # Errors
/// The file is as it was, or as others made it.
pub fn replace<E>(
    path: &Path,
    edit: impl FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, E>,
) -> Result<(), Unchanged<E>> {
    stepwise(path, edit, |_| Ok(()))
}

fn stepwise<E>(
    path: &Path,
    mut edit: impl FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, E>,
    mut step: impl FnMut(Step) -> io::Result<()>,
) -> Result<(), Unchanged<E>> {
    for _ in 0..MAX_TRIES {
        let place = Place::of(path).map_err(system("find the file"))?;
        let Some(old) = place.open()? else { continue };
        let text = old.read().map_err(system("read it"))?;
        let new = edit(&text).map_err(Unchanged::Refused)?;
        if place.change(&old, &text, &new, &mut step)? {
            return Ok(());
        }
    }
    Err(Unchanged::Restless)
}

/// A directory and a name in it.
struct Place {
    directory: File,
    name: OsString,
    /// The name of the new file until it gets the right one. Only who holds the lock uses it, so that it is not left
    /// about in many copies however often the power fails.
    new_name: OsString,
}

impl Place {
    /// Where a path leads to, behind all symbolic links.
    fn of(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let no_file = || io::Error::other("it is not a file");
        let name = path.file_name().ok_or_else(no_file)?.to_owned();
        let mut new_name = OsString::from(".");
        new_name.push(&name);
        new_name.push(".new");
        Ok(Self {
            directory: File::open(path.parent().ok_or_else(no_file)?)?,
            name,
            new_name,
        })
    }

    /// Opens and locks the file; `None` when it was replaced until the lock was ours.
    fn open<E>(&self) -> Result<Option<Old>, Unchanged<E>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.directory, &self.name, flags, Mode::empty());
        let file = File::from(file.map_err(system("open it"))?);
        let metadata = file.metadata().map_err(system("look at it"))?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            let error = io::Error::other("it is no file of at most 16 MiB");
            return Err(system("use it")(error));
        }
        let mut waited = Duration::ZERO;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK && error != Errno::INTR {
                return Err(system("lock it")(error));
            }
            if waited >= PATIENCE {
                return Err(Unchanged::Locked);
            }
            std::thread::sleep(PAUSE);
            waited += PAUSE;
        }
        let old = Old(file);
        let ours = self
            .holds(&self.name, &old.0)
            .map_err(system("look at it"))?;
        Ok(ours.then_some(old))
    }

    /// Whether a name means this very file.
    fn holds(&self, name: &OsStr, file: &File) -> io::Result<bool> {
        let metadata = file.metadata()?;
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) => Ok(named.st_ino == metadata.ino() && named.st_dev == metadata.dev()),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts `new` in the place of `old`, which read `text`; `false` when somebody else was faster.
    fn change<E>(
        &self,
        old: &Old,
        text: &[u8],
        new: &[u8],
        step: &mut impl FnMut(Step) -> io::Result<()>,
    ) -> Result<bool, Unchanged<E>> {
        let unlink = |name: &OsStr| match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        };
        unlink(&self.new_name).map_err(system("remove what an earlier change left"))?;
        let result = self.exchange(old, text, new, step);
        // Whichever of the two files it is now, nobody wants it.
        let cleaned = unlink(&self.new_name);
        let changed = result?;
        // The change stands even if its remains do, which the next one removes.
        if let Err(error) = cleaned {
            tracing::warn!(%error, "cannot remove {}", self.new_name.display());
        }
        Ok(changed)
    }

    fn exchange<E>(
        &self,
        old: &Old,
        text: &[u8],
        new: &[u8],
        step: &mut impl FnMut(Step) -> io::Result<()>,
    ) -> Result<bool, Unchanged<E>> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(
            &self.directory,
            &self.new_name,
            flags,
            Mode::RUSR | Mode::WUSR,
        );
        let mut file = File::from(file.map_err(system("make a file beside it"))?);
        // While it is empty, so that nobody reads it by the rights of another owner.
        old.lend_rights(&file)
            .map_err(system("give mode and owner to the file beside it"))?;
        // Whoever finds it by its new name waits until all is done.
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(system("lock the file beside it"))?;
        step(Step::Made)
            .and_then(|()| file.write_all(new))
            .and_then(|()| fsync(&file).map_err(io::Error::from))
            .and_then(|()| step(Step::Written))
            .map_err(system("write the file beside it"))?;

        let is_old = |name: &OsStr| -> io::Result<bool> {
            Ok(self.holds(name, &old.0)? && *old.read()? == *text)
        };
        if !is_old(&self.name).map_err(system("read it again"))? {
            return Ok(false);
        }
        step(Step::Compared).map_err(system("read it again"))?;
        let swap = || {
            let (directory, name) = (&self.directory, &self.name);
            renameat_with(
                directory,
                &self.new_name,
                directory,
                name,
                RenameFlags::EXCHANGE,
            )
        };
        match swap() {
            Ok(()) => {}
            // A file system that cannot exchange: what is written in this very moment is lost.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                renameat(&self.directory, &self.new_name, &self.directory, &self.name)
                    .map_err(system("rename the file beside it"))?;
                let _ = fsync(&self.directory);
                return Ok(true);
            }
            Err(error) => return Err(system("rename the file beside it")(error)),
        }
        // What was taken away must be what was read, and the new name must be on disk: else all goes back.
        let outcome = step(Step::Exchanged)
            .and_then(|()| is_old(&self.new_name))
            .and_then(|is_old| {
                if is_old {
                    fsync(&self.directory)?;
                }
                Ok(is_old)
            });
        if !matches!(outcome, Ok(true)) {
            swap().map_err(system("take it back"))?;
            // Replaced by somebody else once more in between: theirs is the newest.
            if !self.holds(&self.new_name, &file).unwrap_or(true) {
                swap().map_err(system("take it back"))?;
            }
        }
        outcome.map_err(system("have the directory written to disk"))
    }
}

/// The file as it was opened, and locked.
struct Old(File);

impl Old {
    fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let size = usize::try_from(self.0.metadata()?.len().min(MAX_FILE)).unwrap_or(0);
        // All room at once: growing would leave copies of passwords behind.
        let mut text = Zeroizing::new(vec![0; size + 1]);
        let mut filled = 0;
        while filled < text.len() {
            match self.0.read_at(&mut text[filled..], filled as u64) {
                Ok(0) => break,
                Ok(octets) => filled += octets,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        text.truncate(filled);
        Ok(text)
    }

    /// Gives mode and owner to another file.
    fn lend_rights(&self, to: &File) -> io::Result<()> {
        let (own, other) = (self.0.metadata()?, to.metadata()?);
        fchmod(to.as_fd(), Mode::from_raw_mode(own.mode() & 0o777))?;
        let differs = |own: u32, other: u32| (own != other).then_some(own);
        let user = differs(own.uid(), other.uid()).map(Uid::from_raw);
        let group = differs(own.gid(), other.gid()).map(Gid::from_raw);
        if user.is_some() || group.is_some() {
            fchown(to.as_fd(), user, group)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const STEPS: [Step; 4] = [Step::Made, Step::Written, Step::Compared, Step::Exchanged];

    fn add(line: &'static str) -> impl FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, ()> {
        move |text| Ok(Zeroizing::new([text, line.as_bytes()].concat()))
    }

    /// The names in a directory, sorted.
    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn mode_and_owner_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        fs::write(&path, "old\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        // Only root may give a file away; others see that theirs stays theirs.
        let _ = std::os::unix::fs::chown(&path, Some(12345), Some(54321));
        let before = fs::metadata(&path).unwrap();
        replace(&path, add("new\n")).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\nnew\n");
        assert_ne!(after.ino(), before.ino());
        assert_eq!(
            (after.mode(), after.uid(), after.gid()),
            (before.mode(), before.uid(), before.gid())
        );
        assert_eq!(names(directory.path()), ["users.toml"]);
    }

    #[test]
    fn symbolic_links_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        fs::write(b.join("real"), "old\n").unwrap();
        symlink("../b/real", a.join("link")).unwrap();
        symlink("link", a.join("users.toml")).unwrap();
        replace(&a.join("users.toml"), add("new\n")).unwrap();
        assert_eq!(fs::read_to_string(b.join("real")).unwrap(), "old\nnew\n");
        assert!(a.join("users.toml").is_symlink() && a.join("link").is_symlink());
        assert_eq!(names(&a), ["link", "users.toml"]);
        assert_eq!(names(&b), ["real"]);
        // One that leads nowhere, and one in a circle.
        fs::remove_file(b.join("real")).unwrap();
        assert!(replace(&a.join("users.toml"), add("x")).is_err());
        fs::remove_file(a.join("link")).unwrap();
        symlink("users.toml", a.join("link")).unwrap();
        assert!(replace(&a.join("users.toml"), add("x")).is_err());
        assert!(replace(&a, add("x")).is_err());
    }

    #[test]
    fn whatever_fails_leaves_all_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        fs::write(&path, "old\n").unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        for bad in STEPS {
            let error = stepwise(&path, add("new\n"), |step| {
                if step == bad {
                    return Err(io::Error::other("disk on fire"));
                }
                Ok(())
            });
            let error = error.unwrap_err().to_string();
            assert!(error.contains("disk on fire"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "old\n", "{bad:?}");
            assert_eq!(fs::metadata(&path).unwrap().ino(), before);
            assert_eq!(names(directory.path()), ["users.toml"]);
        }
        let refused = replace(&path, |_| Err("no such user"));
        assert!(matches!(refused, Err(Unchanged::Refused("no such user"))));
        // In the way, and not to be removed.
        fs::create_dir(directory.path().join(".users.toml.new")).unwrap();
        assert!(matches!(
            replace(&path, add("new\n")),
            Err(Unchanged::System { .. })
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\n");
    }

    #[test]
    fn what_an_earlier_change_left_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        fs::write(&path, "old\n").unwrap();
        symlink("/dev/full", directory.path().join(".users.toml.new")).unwrap();
        replace(&path, add("new\n")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\nnew\n");
        assert_eq!(names(directory.path()), ["users.toml"]);
    }

    #[test]
    fn edits_of_others_are_never_lost() {
        type Edit = fn(&Path);
        let in_place: Edit = |path| {
            let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(b"theirs\n").unwrap();
        };
        // As editors save: under another name first.
        let renamed: Edit = |path| {
            let other = path.with_extension("swp");
            let text = fs::read_to_string(path).unwrap();
            fs::write(&other, text + "theirs\n").unwrap();
            fs::rename(&other, path).unwrap();
        };
        for edit in [in_place, renamed] {
            for at in STEPS {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("users.toml");
                fs::write(&path, "old\n").unwrap();
                let mut edited = false;
                let result = stepwise(&path, add("ours\n"), |step| {
                    // After the exchange an editor sees our text already.
                    if step == at && !core::mem::replace(&mut edited, true) {
                        edit(&path);
                    }
                    Ok(())
                });
                assert!(result.is_ok(), "{at:?}");
                let text = fs::read_to_string(&path).unwrap();
                let mut lines: Vec<_> = text.lines().collect();
                lines.sort_unstable();
                assert_eq!(lines, ["old", "ours", "theirs"], "{at:?}: {text}");
                assert_eq!(names(directory.path()), ["users.toml"], "{at:?}");
            }
        }
    }

    #[test]
    fn who_writes_to_the_file_that_was_just_taken_away_is_heard() {
        // Opened before the exchange, written after it.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        fs::write(&path, "old\n").unwrap();
        let mut slow = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let mut written = false;
        stepwise(&path, add("ours\n"), |step| {
            if step == Step::Exchanged && !core::mem::replace(&mut written, true) {
                slow.write_all(b"theirs\n")?;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\ntheirs\nours\n");
        assert_eq!(names(directory.path()), ["users.toml"]);
    }

    #[test]
    fn a_file_that_never_rests_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        fs::write(&path, "").unwrap();
        let mut edits = 0;
        let result = stepwise(&path, add("ours\n"), |step| {
            if step == Step::Written {
                edits += 1;
                fs::write(&path, format!("{edits}\n"))?;
            }
            Ok(())
        });
        assert!(matches!(result, Err(Unchanged::Restless)));
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{edits}\n"));
        assert_eq!(edits, MAX_TRIES);
    }

    #[test]
    fn many_at_once_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        fs::write(&path, "").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for turn in 0..10 {
                        let line = format!("{thread} {turn}\n");
                        loop {
                            let result = replace(path, |text| {
                                Ok::<_, ()>(Zeroizing::new([text, line.as_bytes()].concat()))
                            });
                            match result {
                                Ok(()) => break,
                                // The lock is asked for, not queued for.
                                Err(Unchanged::Restless | Unchanged::Locked) => {}
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        let lines: std::collections::HashSet<_> = text.lines().collect();
        assert_eq!((text.lines().count(), lines.len()), (40, 40));
    }
}
