//! A server whose users are in a file of their own: one changes an expired password by dialling in, others come when the
//! file is read again.
//!
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test says where it cannot go on")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use rustix::process::Signal;
use xtask::lab::dial::{Client, Plan};
use xtask::lab::inside::ping_from;
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server, User};

const USERS: &str = r#"[[user]]
name = "carol"
password = "of last year" # changes it soon
password_expires = 2026-01-01
"#;

/// Outside of every pool.
const ADDRESS: &str = "10.77.0.9";

const PATIENCE: Duration = Duration::from_secs(30);

/// Dials; the code that Windows would show when that fails.
fn dial(road: &Road, name: &str, password: &str, more: &[&str]) -> Result<Client, u64> {
    let plan = Plan {
        more: more.iter().map(|word| (*word).to_owned()).collect(),
        ..Plan::new(User {
            name: name.to_owned(),
            password: password.to_owned(),
        })
    };
    let mut client = Client::start(&road.client, name, &plan).unwrap();
    if client.wait_up(1, PATIENCE).is_ok() {
        return Ok(client);
    }
    let over = client.wait_over(1, PATIENCE).unwrap();
    Err(over[0]["error"].as_u64().unwrap())
}

#[test]
fn users_change_passwords_and_files_are_read_again() {
    let road = Road::build(ClientSide::Namespace).unwrap();
    let path = road.lab.directory().join("users.toml");
    fs::write(&path, USERS).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
    configuration
        .change("auth.users_file", path.to_str().unwrap())
        .unwrap();
    let mut server = Server::start(&road.concentrator, &configuration).unwrap();

    let refused = dial(&road, "carol", "of last year", &[]);
    assert_eq!(refused.err(), Some(648));
    let new = ["--new-password", "of this year"];
    let mut carol = dial(&road, "carol", "of last year", &new).unwrap();
    let changed = USERS
        .replace("of last year", "of this year")
        .replace("2026-01-01", "\"never\"");
    assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    assert!(carol.hang_up().unwrap().0.success());
    assert_eq!(dial(&road, "carol", "of last year", &[]).err(), Some(691));
    let mut carol = dial(&road, "carol", "of this year", &[]).unwrap();

    // Another user, whose address nobody has heard of yet.
    let erin = format!("[[user]]\nname = \"erin\"\npassword = \"hers\"\naddress = \"{ADDRESS}\"\n");
    fs::write(&path, changed.clone() + &erin).unwrap();
    server.signal(Signal::HUP).unwrap();
    server
        .wait_for_line(PATIENCE, |line| line.contains("users read again"))
        .unwrap();
    assert_eq!(server.stats().unwrap().calls, 1, "{}", server.log());
    assert!(carol.hang_up().unwrap().0.success());
    road.internet
        .ip(&format!("route add {ADDRESS}/32 via {}", road::OUTSIDE))
        .unwrap();
    let mut erin = dial(&road, "erin", "hers", &[]).unwrap();
    assert_eq!(erin.wait_up(1, PATIENCE).unwrap()[0]["address"], ADDRESS);
    let (answers, _) = ping_from(&road.client, &road::TARGET.to_string(), 3).unwrap();
    assert_eq!(answers, 3, "{}", server.log());
    assert!(erin.hang_up().unwrap().0.success());

    // A broken file changes nothing, and the log says where it is broken.
    fs::write(&path, format!("{changed}[[user]]\nname = \"frank\"\n")).unwrap();
    server.signal(Signal::HUP).unwrap();
    server
        .wait_for_line(PATIENCE, |line| {
            line.contains("users.toml:5: `password` in [[user]] is missing")
        })
        .unwrap();
    server
        .wait_for_line(PATIENCE, |line| {
            line.contains("the users stay as they were")
        })
        .unwrap();
    let mut erin = dial(&road, "erin", "hers", &[]).unwrap();
    assert!(erin.hang_up().unwrap().0.success());
    let log = server.log();
    assert!(
        !log.contains("of this year") && !log.contains("of last year"),
        "{log}"
    );
    assert!(server.stop().unwrap().success());
}
