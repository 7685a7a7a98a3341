//! `[accounting]`.

use super::*;
use crate::accounting::{NasPort, Stations, Template};

fn accounting(lines: &str) -> Accounting {
    config(&with("accounting", lines)).accounting.unwrap()
}

#[test]
fn an_empty_section_is_enough() {
    assert_eq!(config(SMALL).accounting, None);
    let day = Duration::from_secs(24 * 60 * 60);
    let usual = Accounting {
        file: DEFAULT_LEDGER.into(),
        keep: Some(90 * day),
        checkpoint: Duration::from_secs(60),
        interim: None,
        failures: false,
        mandatory: false,
        radius: true,
        stations: Stations::default(),
    };
    assert_eq!(accounting(""), usual);
    let all = accounting(
        "file = \"here.sqlite\"\nkeep = \"forever\"\ncheckpoint = \"5s\"\ninterim = \"10m\"\nfailures = true\n\
         mandatory = true\nradius = false\nnas_port = \"none\"\nnas_port_id = \"{name}:{call}\"\ncalling_station_id = \"tel {client}\"\n\
         called_station_id = \"{server}\"",
    );
    let text = |text| Template::new(text).unwrap();
    let expected = Accounting {
        file: "here.sqlite".into(),
        keep: None,
        checkpoint: Duration::from_secs(5),
        interim: Some(Duration::from_secs(600)),
        failures: true,
        mandatory: true,
        radius: false,
        stations: Stations {
            nas_port: NasPort::None,
            nas_port_id: text("{name}:{call}"),
            calling: text("tel {client}"),
            called: text("{server}"),
        },
    };
    assert_eq!(all, expected);
    assert_eq!(accounting("keep = \"1h\"").keep, Some(day / 24));
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (line, expected) in [
        ("file = \"\"", "cannot be \"\"; write the name of a file"),
        ("keep = \"1m\"", "from \"1h\" to \"100years\""),
        ("keep = \"a while\"", "or \"forever\""),
        (
            "checkpoint = \"1h\"",
            "write something from 1s to 5m, such as \"60s\"",
        ),
        (
            "interim = \"30s\"",
            "`interim` in [accounting] is 30s; write something from 1m to 1day",
        ),
        ("failures = \"yes\"", "write true or false"),
        ("mandatory = 1", "write true or false"),
        ("nas_port = \"slot\"", "write one of \"call\", \"none\""),
        (
            "calling_station_id = \"{user}\"",
            "{client}, {server}, {call} and {name}",
        ),
        ("server = \"10.0.0.1\"", "`server`"),
    ] {
        let told = fault("accounting", line);
        assert!(told.contains(expected), "{told}");
        assert!(told.starts_with("t.toml:8: "), "{told}");
    }
}

#[test]
fn relative_names_are_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let toml = directory.path().join("turnpike.toml");
    let text = with("accounting", "file = \"books/a.sqlite\"");
    std::fs::write(&toml, text).unwrap();
    let accounting = load(&toml).ok().unwrap().config.accounting.unwrap();
    assert_eq!(accounting.file, directory.path().join("books/a.sqlite"));
}
