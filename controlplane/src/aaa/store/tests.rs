//! Changes of passwords in a real file, and everything that must leave it alone.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::civil::date;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::{Loaded, load};

/// A Monday.
const NOW: DateTime = date(2026, 6, 1).at(12, 0, 0, 0);

const USERS: &str = r#"# All of them.
[[user]]
name = "alice"   # of the board
password = "old password" # since May
password_expires = 2026-05-31
address = "10.9.0.1"

[[user]]
nt_hash = '8846f7eaee8fb117ad06bdd830b7586c'  # "password"
password_expires = 2026-06-01
name = "Bob"

[[user]]
name = "carol"
password = """old
password"""
"#;

struct Rig {
    directory: TempDir,
    store: Store,
}

impl Rig {
    fn new() -> Self {
        Self::with(USERS, "")
    }

    fn with(users: &str, passwords: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("turnpike.toml");
        let text = format!(
            "[access]\ninterface = \"eth0\"\n[network]\nserver_address = \"10.20.0.1\"\npool = [\"10.20.0.10\"]\n\
             [auth]\nusers_file = \"users.toml\"\n[auth.names]\ncase = \"lower\"\n[auth.passwords]\n{passwords}\n\
             [[user]]\nname = \"dave\"\npassword = \"old password\"\n"
        );
        fs::write(&config, text).unwrap();
        fs::write(directory.path().join("users.toml"), users).unwrap();
        let Loaded { config, .. } = load(&config).unwrap_or_else(|faults| panic!("{faults}"));
        let store = Store::new(config.users, config.roster, config.auth.passwords);
        Self { directory, store }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("users.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    fn change(&self, name: &str, old: &str, new: &str) -> Result<(), Cause> {
        let change = Changing {
            name: name.as_bytes(),
            old: &secret(old),
            new,
        };
        self.store.write(&change, NOW)
    }

    /// Whether the running server takes this password, and one that starts now would.
    #[track_caller]
    fn takes(&self, name: &str, password: &str) -> bool {
        let of = |store: &Store| {
            store.with(|users| {
                let account = users.find(name.as_bytes()).unwrap();
                account.secret.is(&secret(password))
            })
        };
        let config = load(&self.directory.path().join("turnpike.toml"))
            .ok()
            .unwrap()
            .config;
        let running = of(&self.store);
        assert_eq!(running, of(&Store::from(config.users)));
        running
    }
}

fn secret(password: &str) -> Secret {
    Secret::new(password).unwrap()
}

fn names(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn only_the_password_and_its_day_are_rewritten() {
    let rig = Rig::new();
    assert_eq!(
        rig.change("ALICE", "old password", "a \"new\" \\ one\n"),
        Ok(())
    );
    let expected = USERS
        .replace("\"old password\"", r#""a \"new\" \\ one\u000a""#)
        .replace("2026-05-31", "\"never\"");
    assert_eq!(rig.text(), expected);
    assert!(rig.takes("alice", "a \"new\" \\ one\n"));
    let standing = |name: &[u8]| {
        rig.store
            .with(|users| users.find(name).unwrap().standing.clone())
    };
    assert_eq!(standing(b"alice").judge(NOW), Ok(()));
    assert_eq!(standing(b"bob").judge(NOW), Err(Cause::PasswordExpired));
    // What was a hash is a hash again.
    assert_eq!(rig.change("HQ\\bob", "password", "пароль 𝄞"), Ok(()));
    assert!(rig.takes("Bob", "пароль 𝄞"));
    assert!(!rig.text().contains("пароль") && !rig.text().contains("8846f7"));
    assert!(
        rig.text()
            .contains("  # \"password\"\npassword_expires = \"never\"\n")
    );
    // A string of several lines, of an account that does not expire.
    assert_eq!(rig.change("carol", "old\npassword", "new password"), Ok(()));
    assert!(
        rig.text()
            .ends_with("[[user]]\nname = \"carol\"\npassword = \"new password\"\n")
    );
    // Turnpike.toml and users.toml.
    assert_eq!(names(rig.directory.path()), 2);
}

#[test]
fn passwords_that_expired_once_expire_again_where_that_is_wanted() {
    let rig = Rig::with(USERS, "lifetime = \"30days\"");
    assert_eq!(rig.change("alice", "old password", "new password"), Ok(()));
    assert!(
        rig.text().contains("password_expires = 2026-07-01\n"),
        "{}",
        rig.text()
    );
    let standing = rig
        .store
        .with(|users| users.find(b"alice").unwrap().standing.clone());
    assert_eq!(standing.judge(date(2026, 6, 30).at(23, 59, 59, 0)), Ok(()));
    assert_eq!(
        standing.judge(date(2026, 7, 1).at(0, 0, 0, 0)),
        Err(Cause::PasswordExpired)
    );
    // One that never expired does not begin to.
    assert_eq!(rig.change("carol", "old\npassword", "new password"), Ok(()));
    assert_eq!(rig.text().matches("password_expires").count(), 2);
}

#[test]
fn inline_tables_are_rewritten_too() {
    let users = "user = [{ password_expires = 2026-01-01, name = \"alice\", password = 'old password' }, # first\n\
                 { name = \"bob\", password = \"old password\" }]\n";
    let rig = Rig::with(users, "");
    assert_eq!(rig.change("alice", "old password", "new password"), Ok(()));
    assert_eq!(
        rig.text(),
        users
            .replace("'old password'", "\"new password\"")
            .replace("2026-01-01", "\"never\"")
    );
}

#[test]
fn what_is_refused_changes_nothing() {
    let rig = Rig::with(USERS, "min_length = 10");
    let refused = |name: &str, old: &str, new: &str, cause| {
        assert_eq!(rig.change(name, old, new), Err(cause), "{name} {new}");
        assert_eq!(rig.text(), USERS);
    };
    refused("alice", "old password", "", Cause::PasswordUnfit);
    refused("alice", "old password", "too short", Cause::PasswordUnfit);
    refused("alice", "old password", "пароль 𝄞𝄞", Cause::PasswordUnfit);
    refused(
        "alice",
        "old password",
        &"x".repeat(257),
        Cause::PasswordUnfit,
    );
    refused(
        "alice",
        "old password",
        "old password",
        Cause::PasswordUnfit,
    );
    // Proved by the client, but not what the file holds.
    refused(
        "alice",
        "older password",
        "new password",
        Cause::PasswordChangedElsewhere,
    );
    refused(
        "nobody",
        "old password",
        "new password",
        Cause::AuthenticationFailed,
    );
    refused("dave", "old password", "new password", Cause::PasswordFixed);
    assert!(rig.takes("alice", "old password"));
    for cause in [
        Cause::PasswordUnfit,
        Cause::PasswordFixed,
        Cause::PasswordChangedElsewhere,
        Cause::PasswordNotWritten,
    ] {
        assert_eq!(cause.client_error(), Some(709));
    }
}

#[test]
fn a_locked_account_gets_no_new_password() {
    for (line, cause) in [
        ("disabled = true", Cause::AccountDisabled),
        ("dial_in = false", Cause::NotPermitted),
        ("hours = [\"Sun 00:00-24:00\"]", Cause::OutsideHours),
    ] {
        let rig = Rig::new();
        let edited = USERS.replace("name = \"alice\"", &format!("{line}\nname = \"alice\""));
        // Since the server read it; a reload would see the same.
        fs::write(rig.path(), &edited).unwrap();
        assert_eq!(
            rig.change("alice", "old password", "new password"),
            Err(cause)
        );
        assert!(rig.store.reload().is_ok());
        assert_eq!(
            rig.change("alice", "old password", "new password"),
            Err(cause)
        );
        assert_eq!(rig.text(), edited);
    }
}

#[test]
fn the_file_is_taken_as_it_is_by_now() {
    let rig = Rig::new();
    // Others have added a user, moved this one and changed his day.
    let edited = format!(
        "[[user]]\nname = \"erin\"\npassword = \"hers\"\n\n{}",
        USERS.replace("2026-05-31", "2026-05-30")
    );
    fs::write(rig.path(), &edited).unwrap();
    assert_eq!(rig.change("alice", "old password", "new password"), Ok(()));
    assert_eq!(
        rig.text(),
        edited
            .replace("\"old password\"", "\"new password\"")
            .replace("2026-05-30", "\"never\"")
    );
    // They have given the user another password: the one who chose it knows better.
    let edited = USERS.replace("old password", "his password");
    fs::write(rig.path(), &edited).unwrap();
    let elsewhere = Err(Cause::PasswordChangedElsewhere);
    assert_eq!(
        rig.change("alice", "new password", "third password"),
        elsewhere
    );
    // They have removed the user.
    fs::write(rig.path(), "").unwrap();
    assert_eq!(
        rig.change("alice", "new password", "third password"),
        elsewhere
    );
    // They have broken the file.
    for broken in [&b"[[user]\n"[..], b"# caf\xe9\n"] {
        fs::write(rig.path(), broken).unwrap();
        assert_eq!(
            rig.change("alice", "new password", "third password"),
            Err(Cause::PasswordNotWritten)
        );
        assert_eq!(fs::read(rig.path()).unwrap(), broken);
    }
    fs::remove_file(rig.path()).unwrap();
    assert_eq!(
        rig.change("alice", "new password", "third password"),
        Err(Cause::PasswordNotWritten)
    );
    assert!(!rig.path().exists());
}

#[test]
fn files_are_read_again_whole_or_not_at_all() {
    let rig = Rig::new();
    let count = || rig.store.with(Users::len);
    assert_eq!(count(), 4);
    fs::write(
        rig.path(),
        "[[user]]\nname = \"erin\"\npassword = \"hers\"\naddress = \"10.9.0.7\"\n",
    )
    .unwrap();
    assert!(rig.store.reload().is_ok());
    // And dave, who stands in the configuration.
    assert_eq!(count(), 2);
    assert_eq!(rig.store.fixed().len(), 1);
    let prefixes = rig.store.with(|users| rig.store.roster().prefixes(users));
    assert!(prefixes.contains(&"10.9.0.7/32".parse().unwrap()));
    fs::write(
        rig.path(),
        "[[user]]\nname = \"frank\"\npassword = \"his\"\n[[user]]\nname = \"gr",
    )
    .unwrap();
    let Err(faults) = rig.store.reload() else {
        panic!("a broken file was taken");
    };
    assert!(
        faults.0[0].to_string().contains("users.toml:5: "),
        "{faults}"
    );
    assert_eq!(count(), 2);
    assert!(
        rig.store
            .with(|users| users.find(b"erin").is_some() && users.find(b"frank").is_none())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_password_comes_back_as_it_went(new in "\\PC{1,40}|[\\x00-\\x7f]{1,40}|.{1,20}", hash in any::<bool>()) {
        prop_assume!(new != "old password");
        let rig = Rig::with(USERS, "min_length = 1");
        let (name, old) = if hash { ("bob", "password") } else { ("alice", "old password") };
        prop_assert_eq!(rig.change(name, old, &new), Ok(()));
        prop_assert!(rig.takes(name, &new));
        prop_assert_eq!(rig.change(name, &new, "old password, once more"), Ok(()));
        prop_assert!(rig.takes(name, "old password, once more"));
    }
}
