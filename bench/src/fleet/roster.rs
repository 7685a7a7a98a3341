//! Who dials: one kind of caller by the options, or several by a scenario file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::{Deserialize, Deserializer};
use turnpike_protocol::mppe::Allowed;
use turnpike_protocol::mschap::Password;
use turnpike_protocol::ppp::{ClientLink, Timing};
use turnpike_protocol::pptp::CallerConfig;

use super::{Dialling, Terms};
use crate::dial::{AuthChoice, MppeChoice, StatefulChoice, StrengthChoice, password};

/// A scenario file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    group: Vec<Entry>,
}

/// A group of callers. What is left out is as on the command line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    /// Of each as many callers as all weights together, so many are of this group.
    #[serde(default = "one")]
    weight: u32,
    user: Option<String>,
    users: Option<u32>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    auth: Option<Vec<Choice<AuthChoice>>>,
    mppe: Option<Choice<MppeChoice>>,
    mppe_strength: Option<Vec<Choice<StrengthChoice>>>,
    mppe_stateful: Option<Choice<StatefulChoice>>,
}

const fn one() -> u32 {
    1
}

/// A word of the command line in a file; a number will do, too.
#[derive(Clone, Copy)]
struct Choice<T>(T);

impl<'de, T: ValueEnum> Deserialize<'de> for Choice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(word) => word,
            other => other.to_string(),
        };
        T::from_str(&word, false).map(Self).map_err(|_| {
            let known: Vec<String> = (T::value_variants().iter())
                .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
                .collect();
            serde::de::Error::custom(format!("{word:?} is none of {}", known.join(", ")))
        })
    }
}

fn words<T: Copy>(given: Option<&[Choice<T>]>, usual: &[T]) -> Vec<T> {
    given.map_or_else(
        || usual.to_vec(),
        |given| given.iter().map(|choice| choice.0).collect(),
    )
}

/// Callers of one kind.
struct Group {
    name: String,
    weight: u32,
    user: String,
    users: u32,
    link: ClientLink,
    caller: CallerConfig,
}

/// Who dials.
pub(crate) struct Roster {
    groups: Vec<Group>,
    is_scenario: bool,
}

impl Roster {
    /// By the options, and the scenario file if they name one.
    ///
    /// # Errors
    /// With all that is wrong with the file.
    pub(crate) fn new(dialling: &Dialling) -> anyhow::Result<Self> {
        let Some(path) = &dialling.scenario else {
            let all = Entry {
                name: String::new(),
                weight: 1,
                user: None,
                users: None,
                password: None,
                password_file: None,
                auth: None,
                mppe: None,
                mppe_strength: None,
                mppe_stateful: None,
            };
            return Ok(Self {
                groups: vec![group(all, dialling, Path::new(""))?],
                is_scenario: false,
            });
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Self::read(&text, dialling, path)
            .with_context(|| format!("{} is no scenario", path.display()))
    }

    fn read(text: &str, dialling: &Dialling, path: &Path) -> anyhow::Result<Self> {
        let File { group: entries } = toml::from_str(text)?;
        anyhow::ensure!(!entries.is_empty(), "there is no [[group]] in it");
        let mut groups = Vec::new();
        let mut faults = Vec::new();
        for entry in entries {
            let name = entry.name.clone();
            match group(entry, dialling, path) {
                Ok(group) => groups.push(group),
                Err(error) => faults.push(format!("group {name:?}: {error:#}")),
            }
        }
        anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(Self {
            groups,
            is_scenario: true,
        })
    }

    /// How the caller with a number dials.
    pub(crate) fn terms(&self, number: u32) -> Terms {
        let (group, index) = self.place(number);
        let name = group.name_of(index);
        Terms {
            caller: group.caller.clone(),
            link: ClientLink {
                name: name.into_bytes(),
                ..group.link.clone()
            },
        }
    }

    /// What happened to the caller with a number, under the name of its group if there are groups.
    pub(crate) fn label(&self, number: u32, words: String) -> String {
        if self.is_scenario {
            format!("{}: {words}", self.place(number).0.name)
        } else {
            words
        }
    }

    /// The group of the caller with a number, and which of the group's it is.
    fn place(&self, number: u32) -> (&Group, u32) {
        let sum: u32 = self.groups.iter().map(|group| group.weight).sum();
        let (round, mut rest) = (number / sum.max(1), number % sum.max(1));
        let last = self.groups.len() - 1;
        for group in &self.groups[..last] {
            if rest < group.weight {
                return (group, round * group.weight + rest);
            }
            rest -= group.weight;
        }
        let group = &self.groups[last];
        (group, round * group.weight + rest)
    }
}

impl Group {
    fn name_of(&self, index: u32) -> String {
        self.user.replace("{}", &(index % self.users).to_string())
    }
}

fn group(entry: Entry, dialling: &Dialling, path: &Path) -> anyhow::Result<Group> {
    let user = entry.user.or_else(|| dialling.user.clone());
    let user = user.context("it has no user, and there is no --user")?;
    let users = entry.users.unwrap_or(dialling.users);
    anyhow::ensure!(
        users > 0 && entry.weight > 0,
        "users and weight must be above 0"
    );
    anyhow::ensure!(entry.weight <= 1_000_000, "a weight is at most 1000000");
    anyhow::ensure!(
        users == 1 || user.contains("{}"),
        "{users} users need a {{}} in {user:?}, where the number goes"
    );
    let secret = match (&entry.password, &entry.password_file) {
        (Some(_), Some(_)) => anyhow::bail!("password or password_file, not both"),
        (None, None) => {
            let given = dialling.password.is_some() || dialling.password_file.is_some();
            anyhow::ensure!(given, "it has no password, and there is no --password");
            password(
                dialling.password.as_deref(),
                dialling.password_file.as_deref(),
            )?
        }
        (word, file) => {
            // Beside the scenario, unless it says where.
            let file =
                (file.as_ref()).map(|file| path.parent().unwrap_or(Path::new("")).join(file));
            password(word.as_deref(), file.as_deref())?
        }
    };
    let patience = dialling.patience;
    let auth = words(entry.auth.as_deref(), &dialling.auth);
    let strengths = words(entry.mppe_strength.as_deref(), &dialling.mppe_strength);
    let mppe = entry.mppe.map_or(dialling.mppe, |choice| choice.0);
    let stateful = entry
        .mppe_stateful
        .map_or(dialling.mppe_stateful, |it| it.0);
    Ok(Group {
        name: entry.name,
        weight: entry.weight,
        users,
        link: ClientLink {
            mppe: mppe.into(),
            mppe_allowed: Allowed {
                strengths: strengths.into_iter().map(Into::into).collect(),
                stateful: stateful.into(),
            },
            methods: auth.into_iter().map(Into::into).collect(),
            timing: Timing {
                set_up: Some(patience),
                ..Timing::default()
            },
            ..ClientLink::new(user.as_bytes(), Password::new(&*secret))
        },
        user,
        caller: CallerConfig {
            setup_time: patience,
            ..CallerConfig::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use turnpike_protocol::mppe::Policy;
    use turnpike_protocol::ppp::AuthProtocol;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        dialling: Dialling,
    }

    fn dialling(more: &[&str]) -> Dialling {
        let words = ["x", "10.7.0.1"];
        Cli::parse_from(words.iter().chain(more)).dialling
    }

    fn names(roster: &Roster, numbers: core::ops::Range<u32>) -> Vec<String> {
        numbers
            .map(|number| String::from_utf8(roster.terms(number).link.name).unwrap())
            .collect()
    }

    #[test]
    fn users_take_turns() {
        let with =
            |more: &[&str]| Roster::new(&dialling(&[&["--password", "secret"], more].concat()));
        let many = with(&["--user", r"LAN\user{}", "--users", "3"]).unwrap();
        assert_eq!(
            names(&many, 0..4),
            [r"LAN\user0", r"LAN\user1", r"LAN\user2", r"LAN\user0"]
        );
        assert_eq!(many.label(2, "gone".to_owned()), "gone");
        let one = with(&["--user", "alice"]).unwrap();
        assert_eq!(names(&one, 7..8), ["alice"]);
        assert!(with(&["--user", "alice", "--users", "3"]).is_err());
    }

    #[test]
    fn groups_mix_by_their_weights() {
        let text = r#"
            [[group]]
            name = "windows"
            weight = 2
            user = "win{}"
            users = 3

            [[group]]
            name = "routers"
            user = "router"
            password = "other"
            auth = ["chap-md5", "pap"]
            mppe = "allow"
            mppe_strength = [128, "56"]
            mppe_stateful = "ask"
        "#;
        let options = dialling(&["--scenario", "x.toml", "--password", "secret"]);
        let roster = Roster::read(text, &options, Path::new("x.toml")).unwrap();
        assert_eq!(
            names(&roster, 0..7),
            ["win0", "win1", "router", "win2", "win0", "router", "win1"]
        );
        let link = roster.terms(2).link;
        assert_eq!(link.methods, [AuthProtocol::ChapMd5, AuthProtocol::Pap]);
        assert_eq!(link.mppe, Policy::Allow);
        assert_eq!(roster.terms(0).link.mppe, Policy::Require);
        assert_eq!(roster.label(5, "gone".to_owned()), "routers: gone");
    }

    #[test]
    fn the_example_is_a_scenario() {
        let text = include_str!("../../scenario.toml");
        let options = dialling(&["--scenario", "scenario.toml"]);
        let roster = Roster::read(text, &options, Path::new("scenario.toml")).unwrap();
        let names: Vec<&str> = roster.groups.iter().map(|group| &*group.name).collect();
        assert_eq!(names, ["desktops", "old", "routers"]);
        assert_eq!(names_of_ten(&roster), [7, 2, 1]);
    }

    fn names_of_ten(roster: &Roster) -> Vec<usize> {
        let of = |name: &str| {
            let numbers = (0..10).filter(|number| roster.place(*number).0.name == name);
            numbers.count()
        };
        roster.groups.iter().map(|group| of(&group.name)).collect()
    }

    #[test]
    fn what_is_wrong_with_a_scenario_is_said() {
        let options = dialling(&["--scenario", "x.toml"]);
        for (text, word) in [
            ("", "no [[group]]"),
            ("[[group]]\nname = 'a'\nmpe = 'deny'", "line 3"),
            (
                "[[group]]\nname = 'a'\nmppe = 'some'",
                "none of deny, allow",
            ),
            ("[[group]]\nname = 'a'\nuser = 'x'", "no password"),
            ("[[group]]\nname = 'a'\npassword = 'x'", "no user"),
            (
                "[[group]]\nname = 'a'\nuser = 'x'\npassword = 'y'\nusers = 2",
                "need a {}",
            ),
            (
                "[[group]]\nname = 'a'\nuser = 'x'\npassword = 'y'\nweight = 0",
                "above 0",
            ),
        ] {
            let Err(error) = Roster::read(text, &options, Path::new("x.toml")) else {
                panic!("{text} is taken");
            };
            let error = format!("{error:#}");
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
