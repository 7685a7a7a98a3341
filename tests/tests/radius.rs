//! FreeRADIUS as Debian has it, in its own namespace, lets clients in by every method; the keys that it gives carry data.
//!
//! Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says where it cannot go on, and what it saw"
)]

use std::time::Duration;

use serde_json::{Value, json};
use toml::Value as Setting;
use xtask::lab::dial::{Client, Plan, TUNNEL_INTERFACE};
use xtask::lab::freeradius::{self, FreeRadius};
use xtask::lab::road::{self, ClientSide, Road};
use xtask::lab::server::{Configuration, Server, User};

const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "a-secret-of-the-tests";

const USERS: &str = r#"alice	Cleartext-Password := "correct horse"
	Service-Type = Framed-User,
	Framed-Protocol = PPP,
	Framed-IP-Address = 10.20.0.77,
	MS-Primary-DNS-Server = 10.20.0.53

bob	Cleartext-Password := "battery staple"

carol	Cleartext-Password := "battery staple"
	Filter-Id = "no-such-filter"
"#;

struct Stage {
    server: Server,
    radius: FreeRadius,
    road: Road,
}

impl Stage {
    fn build(signed: bool, keys: bool, mppe: &str, lenient: bool, secret: &str) -> Self {
        let road = Road::build(ClientSide::Namespace).unwrap();
        let plan = freeradius::Plan {
            secret: SECRET.to_owned(),
            users: USERS.to_owned(),
            signed,
            keys,
        };
        let radius = FreeRadius::start(&road, &plan).unwrap();
        let mut configuration = Configuration::example("office", road.lab.directory()).unwrap();
        configuration.change("auth.mppe", mppe).unwrap();
        let methods = ["ms-chap-v2", "ms-chap-v1", "chap-md5", "pap"];
        let methods = methods.map(|method| Setting::String(method.to_owned()));
        configuration
            .change("auth.methods", Setting::Array(methods.to_vec()))
            .unwrap();
        let mut server = toml::Table::new();
        for (key, value) in [
            ("address", Setting::String(freeradius::ADDRESS.to_string())),
            ("secret", Setting::String(secret.to_owned())),
            ("timeout", Setting::String("1s".to_owned())),
            ("tries", Setting::Integer(2)),
        ] {
            server.insert(key.to_owned(), value);
        }
        if lenient {
            let accept = Setting::String("accept_missing".to_owned());
            server.insert("message_authenticator".to_owned(), accept);
        }
        let servers = Setting::Array(vec![Setting::Table(server)]);
        configuration.change("radius.server", servers).unwrap();
        let only = Setting::Array(vec![Setting::String("radius".to_owned())]);
        configuration.change("auth.backends", only).unwrap();
        let server = Server::start(&road.concentrator, &configuration).unwrap();
        Self {
            server,
            radius,
            road,
        }
    }

    fn dial(&self, name: &str, password: &str, more: &[&str]) -> Client {
        let mut plan = Plan::new(User {
            name: name.to_owned(),
            password: password.to_owned(),
        });
        plan.more.extend(more.iter().map(|word| (*word).to_owned()));
        Client::start(&self.road.client, name, &plan).unwrap()
    }

    /// What is said when something does not come.
    fn said(&self, client: &Client) -> String {
        format!(
            "{}\n{}\n{}",
            client.text(),
            self.server.log(),
            self.radius.log()
        )
    }

    /// Dials, moves packets both ways, hangs up; the call's line.
    fn call(&self, name: &str, password: &str, more: &[&str]) -> Value {
        let mut client = self.dial(name, password, more);
        let up = client
            .wait_up(1, PATIENCE)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.said(&client)));
        let ping = format!(
            "ping -c 3 -i 0.2 -W 2 -I {TUNNEL_INTERFACE} {}",
            road::TARGET
        );
        self.road
            .client
            .run(&ping)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.said(&client)));
        client.hang_up().unwrap();
        up[0].clone()
    }

    /// Dials in vain; what the log says of it.
    fn refused(&self, name: &str, password: &str, line: &str) {
        let mut client = self.dial(name, password, &[]);
        client
            .wait_over(1, PATIENCE)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.said(&client)));
        assert!(
            self.server.log().contains(line),
            "{line}\n{}",
            self.said(&client)
        );
    }

    fn count(&self, name: &str) -> u64 {
        let stats = self.server.ask(&["stats"]).unwrap();
        stats["control"][name].as_u64().unwrap_or(0)
    }
}

#[test]
fn every_method_lets_users_in_and_keys_carry_data() {
    let stage = Stage::build(true, true, "prefer", false, SECRET);
    let up = stage.call("alice", "correct horse", &[]);
    assert_eq!(up["address"], json!("10.20.0.77"), "{up}");
    stage.call("bob", "battery staple", &["--auth", "ms-chap-v1"]);
    for method in ["chap-md5", "pap"] {
        stage.call(
            "bob",
            "battery staple",
            &["--auth", method, "--mppe", "deny"],
        );
    }
    stage.refused("bob", "a guess", "E=691");
    stage.refused("nobody", "a guess", "E=691");
    stage.refused("carol", "battery staple", "radius.unknown_filter");
    assert_eq!(stage.count("calls_up"), 4);
    // One request for each login, and each answer believed.
    let answers = stage.count("radius_answers");
    assert_eq!((answers, stage.count("radius_requests_repeated")), (7, 0));
    println!("{answers} logins judged by FreeRADIUS");
}

#[test]
fn what_is_wrong_with_the_server_is_told_apart() {
    // As Debian 12 has it: no Message-Authenticator in answers to MS-CHAP.
    let stage = Stage::build(false, true, "require", false, SECRET);
    stage.refused(
        "bob",
        "battery staple",
        "message_authenticator = \"accept_missing\"",
    );
    drop(stage);
    let stage = Stage::build(false, true, "require", true, SECRET);
    stage.call("bob", "battery staple", &[]);
    drop(stage);
    let stage = Stage::build(true, false, "require", false, SECRET);
    stage.refused("bob", "battery staple", "MS-MPPE-Send-Key is missing");
    drop(stage);
    // FreeRADIUS says nothing to who has another secret.
    let stage = Stage::build(true, true, "require", false, "another-secret");
    stage.refused("bob", "battery staple", "no RADIUS server answers");
    assert!(
        stage.radius.log().contains("Shared secret is incorrect"),
        "{}",
        stage.radius.log()
    );
}
