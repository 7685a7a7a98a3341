//! States of accounts and changes of passwords as clients meet them: over loopback TCP, against a real file.
#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod rig;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rig::{Client, Rig, Saw};
use tempfile::TempDir;
use turnpike_controlplane::aaa::Store;
use turnpike_controlplane::config::{Loaded, load};
use turnpike_controlplane::listener::Limits;
use turnpike_dataplane::rings::RingSizes;
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{self, ClientLink};

const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

const LIMITS: Limits = Limits {
    per_source: 64,
    total: 1000,
};

const USERS: &str = r#"# Written by hand.
[[user]]
name = "alice"
password = "old password" # hers
password_expires = 2020-01-01

[[user]]
name = "hash"
nt_hash = "8846f7eaee8fb117ad06bdd830b7586c"
password_expires = 2020-01-01

[[user]]
name = "disabled"
password = "old password"
disabled = true

[[user]]
name = "elsewhere"
password = "old password"
dial_in = false

[[user]]
name = "Иван"
password = "old password"
"#;

/// A server with a file of users, and its clients.
struct Office {
    directory: TempDir,
    rig: Rig,
    calls: u16,
}

impl Office {
    async fn open(users: &str, auth: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("turnpike.toml");
        let text = format!(
            "[access]\ninterface = \"eth0\"\n[network]\nserver_address = \"10.20.0.1\"\n\
             pool = [\"10.20.1.0/24\"]\n[auth]\nusers_file = \"users.toml\"\n{auth}"
        );
        std::fs::write(&config, text).unwrap();
        let path = directory.path().join("users.toml");
        std::fs::write(&path, users).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let Loaded { config, .. } = load(&config).unwrap_or_else(|faults| panic!("{faults}"));
        let store = Store::new(config.users, config.roster, config.auth.passwords);
        let setup_time = Duration::from_secs(30);
        let sizes = RingSizes::default();
        let rig = Rig::with_users(LIMITS, 10, setup_time, sizes, store).await;
        Self {
            directory,
            rig,
            calls: 0,
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("users.toml")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    async fn dial(&mut self, config: ClientLink) -> Client {
        self.calls += 1;
        self.rig.dial_as(CLIENT, self.calls, config).await
    }

    /// Logs in and hangs up; what the client is told when it is refused.
    async fn log_in(&mut self, config: ClientLink) -> Result<(), u32> {
        let mut client = self.dial(config).await;
        let ends = |saw: &Saw| matches!(saw, Saw::Up(_) | Saw::LinkOver(_));
        let result = match client.until(ends).await {
            Saw::Up(_) => Ok(()),
            Saw::LinkOver(ppp::End::AuthenticationFailed { code, .. }) => Err(code),
            other => panic!("{other:?}"),
        };
        client.clear();
        client.until(|saw| *saw == Saw::Disconnected).await;
        drop(client);
        self.rig.until("empty", Rig::is_empty).await;
        result
    }

    /// How often something was counted.
    fn count(&self, name: &str) -> u64 {
        self.rig
            .shared
            .counts
            .by_name()
            .get(name)
            .copied()
            .unwrap_or(0)
    }
}

fn password(password: &str) -> Password {
    Password::new(password)
}

fn client(name: &str, old: &str, new: Option<&str>) -> ClientLink {
    ClientLink {
        new_password: new.map(password),
        ..ClientLink::new(name.as_bytes(), password(old))
    }
}

#[tokio::test]
async fn an_expired_password_is_changed_in_the_call_and_in_the_file() {
    let mut office = Office::open(USERS, "").await;
    // As Windows does: the domain is not hashed.
    let link = client(r"HQ\alice", "old password", Some("new password"));
    assert_eq!(office.log_in(link).await, Ok(()));
    // Said once, although the login was right in the end.
    assert_eq!(office.count("logins_failed"), 1);
    assert_eq!(office.count("ended_hung_up"), 1);
    assert_eq!(
        office.text(),
        USERS
            .replacen("\"old password\"", "\"new password\"", 1)
            .replacen("2020-01-01", "\"never\"", 1)
    );
    let mode = office.path().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    // From now on it is the password.
    assert_eq!(
        office.log_in(client("alice", "new password", None)).await,
        Ok(())
    );
    assert_eq!(
        office.log_in(client("alice", "old password", None)).await,
        Err(691)
    );
    // Of an account that holds a hash, too.
    let link = client("hash", "password", Some("пароль 𝄞"));
    assert_eq!(office.log_in(link).await, Ok(()));
    assert!(!office.text().contains("8846f7") && !office.text().contains("пароль"));
    assert_eq!(
        office.log_in(client("hash", "пароль 𝄞", None)).await,
        Ok(())
    );

    // A server that starts now reads the same.
    let check = Command::new(env!("CARGO_BIN_EXE_turnpike"))
        .args(["check", "--config"])
        .arg(office.directory.path().join("turnpike.toml"))
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
}

#[tokio::test]
async fn every_state_has_its_error() {
    let mut office = Office::open(USERS, "").await;
    for (name, code, cause) in [
        ("disabled", 647, "ended_account_disabled"),
        ("elsewhere", 649, "ended_not_permitted"),
        ("alice", 648, "ended_password_expired"),
        ("nobody", 691, "ended_authentication_failed"),
    ] {
        let link = client(name, "old password", None);
        assert_eq!(office.log_in(link).await, Err(code), "{name}");
        assert_eq!(office.count(cause), 1, "{name}");
    }
    // Of an account that is locked, who guesses hears nothing.
    for name in ["disabled", "elsewhere", "alice"] {
        let link = client(name, "a guess", Some("new password"));
        assert_eq!(office.log_in(link).await, Err(691), "{name}");
    }
    assert_eq!(office.count("ended_authentication_failed"), 4);
    // At no hour of any day but the one that is a year of days away from now.
    let hours = "hours = [\"Mon 00:00-00:01\"]\nname = \"elsewhere\"";
    let users = USERS
        .replace("dial_in = false", "")
        .replace("name = \"elsewhere\"", hours);
    let mut office = Office::open(&users, "").await;
    let link = client("elsewhere", "old password", None);
    let now = turnpike_controlplane::aaa::local_time();
    if (now.hour(), now.minute()) != (0, 0) && (now.hour(), now.minute()) != (23, 59) {
        assert_eq!(office.log_in(link).await, Err(646));
        assert_eq!(office.count("ended_outside_hours"), 1);
    }
}

#[tokio::test]
async fn a_change_that_is_refused_has_its_reason_and_leaves_the_file() {
    let mut office = Office::open(USERS, "[auth.passwords]\nmin_length = 12\n").await;
    for new in ["too short", "old password", &"x".repeat(256)[..0]] {
        let link = client("alice", "old password", Some(new));
        assert_eq!(office.log_in(link).await, Err(709), "{new}");
        assert_eq!(office.text(), USERS);
    }
    assert_eq!(office.count("ended_password_unfit"), 3);
    // Somebody breaks the file while the server runs.
    let broken = USERS.replace("[[user]]\nname = \"Иван\"", "[[user]\nname = \"Иван\"");
    std::fs::write(office.path(), &broken).unwrap();
    let link = client("alice", "old password", Some("new password"));
    assert_eq!(office.log_in(link.clone()).await, Err(709));
    assert_eq!(office.count("ended_password_not_written"), 1);
    assert_eq!(office.text(), broken);
    // Nobody else is troubled by that.
    assert_eq!(
        office.log_in(client("Иван", "old password", None)).await,
        Ok(())
    );
    // Or gives her another password.
    let edited = USERS.replacen("old password", "by the office", 1);
    std::fs::write(office.path(), &edited).unwrap();
    assert_eq!(office.log_in(link.clone()).await, Err(709));
    assert_eq!(office.count("ended_password_changed_elsewhere"), 1);
    assert_eq!(office.text(), edited);
    // All is well when the file is: the old password is still hers.
    std::fs::write(office.path(), USERS).unwrap();
    assert_eq!(office.log_in(link).await, Ok(()));
    assert!(office.text().contains("\"new password\" # hers"));
}

#[tokio::test]
async fn a_wrong_password_may_be_mended_three_times_in_a_call() {
    let mut office = Office::open(USERS, "").await;
    let others = |passwords: &[&str]| passwords.iter().map(|p| password(p).into()).collect();
    let link = ClientLink {
        other_secrets: others(&["second guess", "third guess", "old password"]),
        ..client("Иван", "first guess", None)
    };
    assert_eq!(office.log_in(link).await, Ok(()));
    // Each Response was judged once.
    assert_eq!(office.count("logins_failed"), 3);
    assert_eq!(office.count("ended_authentication_failed"), 0);
    let link = ClientLink {
        other_secrets: others(&["second", "third", "fourth", "old password"]),
        ..client("Иван", "first guess", None)
    };
    assert_eq!(office.log_in(link).await, Err(691));
    assert_eq!(office.count("logins_failed"), 7);
    assert_eq!(office.count("ended_authentication_failed"), 1);
    // First the right one, then a new one.
    let link = ClientLink {
        other_secrets: others(&["old password"]),
        ..client("alice", "a guess", Some("new password"))
    };
    assert_eq!(office.log_in(link).await, Ok(()));
    assert!(office.text().contains("\"new password\" # hers"));
}

#[tokio::test]
async fn names_come_in_every_form() {
    let names =
        "[auth.names]\nrealm = \"strip\"\ncase = \"lower\"\nsecond_encoding = \"windows-1251\"\n";
    let mut office = Office::open(USERS, names).await;
    for name in [
        "иван".as_bytes(),
        "HQ\\ИВАН@example.org".as_bytes(),
        b"\xc8\xe2\xe0\xed",
        b"HQ\\\xe8\xe2\xe0\xed",
    ] {
        let link = ClientLink {
            name: name.to_vec(),
            ..client("", "old password", None)
        };
        assert_eq!(office.log_in(link).await, Ok(()), "{name:?}");
    }
    let long = [b'x'; 253];
    for name in [&b"HQ\\"[..], b"@hq", &long, b"\x98\xff"] {
        let link = ClientLink {
            name: name.to_vec(),
            ..client("", "old password", None)
        };
        assert_eq!(office.log_in(link).await, Err(691), "{name:?}");
    }
}

#[tokio::test]
async fn calls_stay_up_whatever_becomes_of_their_users() {
    let mut office = Office::open(USERS, "").await;
    let mut client_of_ivan = office.dial(client("Иван", "old password", None)).await;
    client_of_ivan.until(|saw| matches!(saw, Saw::Up(_))).await;
    std::fs::write(
        office.path(),
        "[[user]]\nname = \"bob\"\npassword = \"his own\"\n",
    )
    .unwrap();
    assert!(office.rig.shared.users.reload().is_ok());
    let mut bob = office.dial(client("bob", "his own", None)).await;
    bob.until(|saw| matches!(saw, Saw::Up(_))).await;
    assert_eq!(office.rig.shared.sessions.len(), 2);
    let mut again = office.dial(client("Иван", "old password", None)).await;
    let over = again.until(|saw| matches!(saw, Saw::LinkOver(_))).await;
    let refused = matches!(
        over,
        Saw::LinkOver(ppp::End::AuthenticationFailed { code: 691, .. })
    );
    assert!(refused, "{over:?}");
    assert_eq!(office.rig.shared.pools.in_use(), 2);
    assert_eq!(office.count("ended_hung_up"), 0);
}
