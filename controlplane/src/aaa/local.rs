//! Users that this server knows by itself.

use std::collections::HashMap;

use jiff::civil::DateTime;
use turnpike_protocol::mschap::{self, Password};
use turnpike_protocol::ppp::{Credentials, Unproved};

use super::prove::prove;
use super::{Account, Addresses, Admission, Names, Secret, names};
use crate::cause::Cause;
use crate::pool::Range;

/// All users, of the configuration file and of the files that it names.
#[derive(Clone, Default)]
pub struct Users {
    names: Names,
    /// By name, as [`Case::fold`](super::Case::fold) leaves it.
    accounts: HashMap<Vec<u8>, Account>,
    /// The account of everybody whose name stands nowhere (client `*` of a `chap-secrets` file).
    anybody: Option<(Secret, Addresses)>,
}

impl Users {
    /// Nobody yet, to be looked up by these rules.
    pub fn new(names: Names) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }

    /// How names are looked up.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Adds a user; `false`, and nothing is changed, when there is one of this name.
    pub fn add(&mut self, account: Account) -> bool {
        let key = self.names.case.fold(&account.name);
        if self.accounts.contains_key(&key) {
            return false;
        }
        self.accounts.insert(key, account);
        true
    }

    /// Puts an account in place of the one of the same name, if there is one.
    pub fn replace(&mut self, account: Account) {
        if let Some(old) = self.accounts.get_mut(&self.names.case.fold(&account.name)) {
            *old = account;
        }
    }

    /// Sets the account of everybody who has none; `false`, and nothing is changed, when there is one.
    pub fn add_anybody(&mut self, secret: Secret, addresses: Addresses) -> bool {
        if self.anybody.is_some() {
            return false;
        }
        self.anybody = Some((secret, addresses));
        true
    }

    /// How many accounts there are; that of everybody counts as one.
    pub fn len(&self) -> usize {
        self.accounts.len() + usize::from(self.anybody.is_some())
    }

    /// Nobody can come in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The users of whose passwords only the NT hash is known, as fit for terminals, in the order of their names.
    pub fn hash_only(&self) -> Vec<String> {
        let accounts = self.accounts.values();
        let mut names: Vec<_> = accounts
            .filter(|account| account.secret.0.password().is_none())
            .map(|account| names::printable(&account.name))
            .collect();
        names.sort_unstable();
        names
    }

    /// Addresses that belong to certain users, in no order; nobody else may get them.
    pub fn fixed(&self) -> impl Iterator<Item = Range> {
        let own = self.accounts.values().map(|account| &account.addresses);
        let all = own.chain(self.anybody.iter().map(|(_, addresses)| addresses));
        all.filter_map(|addresses| match addresses {
            Addresses::Fixed(ranges) => Some(ranges.iter().copied()),
            Addresses::Pool | Addresses::Named(_) | Addresses::None => None,
        })
        .flatten()
    }

    /// The account that a client means. The name may be empty, or stand nowhere.
    pub fn find(&self, wire: &[u8]) -> Option<&Account> {
        self.names
            .candidates(wire)
            .find_map(|name| self.accounts.get(&name))
    }

    /// Whether the name is somebody's here, or that of everybody is.
    pub fn knows(&self, wire: &[u8]) -> bool {
        self.look_up(wire).is_some()
    }

    /// Looks a name up: its account, or that of everybody.
    fn look_up(&self, wire: &[u8]) -> Option<Found<'_>> {
        if let Some(account) = self.find(wire) {
            return Some(Found {
                user: names::printable(&account.name),
                secret: &account.secret,
                addresses: &account.addresses,
                account: Some(account),
            });
        }
        let user_part = mschap::user_part(wire);
        let (secret, addresses) = self.anybody.as_ref().filter(|_| !user_part.is_empty())?;
        Some(Found {
            user: self.names.shown(user_part),
            secret,
            addresses,
            account: None,
        })
    }

    /// Checks what a client gave, by whichever method but a change of the password. `now` is the time of the machine's
    /// clock.
    ///
    /// # Errors
    /// [`Cause::AuthenticationFailed`] for a wrong password and an unknown user alike, after the same work;
    /// [`Cause::HashOnly`], of which the client hears no more than that, where the method needs a password. Only who
    /// knows the password hears more: what [`Standing::judge`](super::Standing::judge) says, and
    /// [`Cause::NotPermitted`] of an account that allows no address.
    pub fn authenticate(
        &self,
        credentials: &Credentials,
        now: DateTime,
    ) -> Result<Admission, Cause> {
        // An unknown name costs the same hashes and DES blocks as a wrong password, so that the time of an answer
        // does not tell which names exist.
        let nobody = Secret(Password::new("").into());
        let found = self.look_up(credentials.name());
        let secret = found.as_ref().map_or(&nobody, |found| found.secret);
        let proof = prove(credentials, &secret.0, &self.names);
        // The password of nobody is no secret: a response that fits it proves nothing.
        let (found, proof) = match (found, proof) {
            (Some(found), Ok(proof)) => (found, proof),
            (Some(_), Err(Unproved::PasswordNotStored)) => return Err(Cause::HashOnly),
            _ => return Err(Cause::AuthenticationFailed),
        };
        if let Some(account) = found.account {
            account.standing.judge(now)?;
        }
        if *found.addresses == Addresses::None {
            return Err(Cause::NotPermitted);
        }
        Ok(Admission {
            user: found.user,
            proof,
            addresses: found.addresses.clone(),
            entitlements: None,
        })
    }
}

/// Whom a name means.
struct Found<'a> {
    /// For logs.
    user: String,
    secret: &'a Secret,
    addresses: &'a Addresses,
    /// `None` for everybody's account.
    account: Option<&'a Account>,
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use jiff::civil::date;
    use turnpike_protocol::mschap::NtHash;

    use super::super::{Case, Part, Standing, encoding};
    use super::*;

    /// On a Monday.
    const NOON: DateTime = date(2026, 6, 1).at(12, 0, 0, 0);

    fn secret(password: &str) -> Secret {
        Secret::new(password).unwrap()
    }

    fn account(name: &str, password: &str) -> Account {
        Account::new(name, secret(password))
    }

    /// Logs in as a client would.
    fn log_in(users: &Users, name: &[u8], password: &str) -> Result<Admission, Cause> {
        let (challenge, peer_challenge) = ([7; 16], [9; 16]);
        let hash = NtHash::from_password(password);
        let credentials = Credentials::MsChapV2 {
            identifier: 1,
            name: name.to_vec(),
            challenge,
            peer_challenge,
            nt_response: mschap::nt_response(&hash, &challenge, &peer_challenge, name),
        };
        users.authenticate(&credentials, NOON)
    }

    #[test]
    fn takes_the_right_password_only() {
        let mut users = Users::default();
        assert!(users.is_empty());
        assert!(users.add(account("alice", "correct horse")));
        assert!(!users.add(account("alice", "another")));
        assert_eq!(users.len(), 1);
        let admission = log_in(&users, b"alice", "correct horse").ok().unwrap();
        assert_eq!(admission.user, "alice");
        assert_eq!(admission.addresses, Addresses::Pool);
        for (name, password) in [
            ("alice", "another"),
            ("Alice", "correct horse"),
            ("bob", "correct horse"),
            ("", "correct horse"),
        ] {
            assert_eq!(
                log_in(&users, name.as_bytes(), password).err(),
                Some(Cause::AuthenticationFailed),
                "{name}"
            );
        }
    }

    #[test]
    fn the_password_of_nobody_opens_nothing() {
        let users = Users::default();
        let (challenge, peer_challenge) = ([7; 16], [9; 16]);
        let nobody = NtHash::from_password("");
        let credentials = Credentials::MsChapV2 {
            identifier: 1,
            name: b"alice".to_vec(),
            challenge,
            peer_challenge,
            nt_response: mschap::nt_response(&nobody, &challenge, &peer_challenge, b"alice"),
        };
        let outcome = users.authenticate(&credentials, NOON);
        assert_eq!(outcome.err(), Some(Cause::AuthenticationFailed));
    }

    #[test]
    fn a_domain_is_left_out_unless_an_account_has_it() {
        let mut users = Users::default();
        users.add(account("alice", "plain"));
        users.add(account("HQ\\alice", "of the domain"));
        let user = |name: &[u8], password| log_in(&users, name, password).ok().map(|a| a.user);
        assert_eq!(user(b"HQ\\alice", "of the domain").unwrap(), "HQ\\alice");
        assert_eq!(user(b"HQ\\alice", "plain"), None);
        assert_eq!(user(b"LAB\\alice", "plain").unwrap(), "alice");
        assert_eq!(user(b"alice", "plain").unwrap(), "alice");
        // A realm is part of the name (RFC 2759 §4 knows only the backslash).
        assert_eq!(user(b"alice@hq", "plain"), None);
    }

    #[test]
    fn names_are_octets() {
        let mut users = Users::default();
        users.add(Account {
            name: b"andr\xe9".to_vec(),
            ..account("", "pass")
        });
        assert_eq!(
            log_in(&users, b"andr\xe9", "pass").ok().unwrap().user,
            r"andr\xe9"
        );
        assert!(log_in(&users, "andré".as_bytes(), "pass").is_err());
    }

    #[test]
    fn everybody_may_have_an_account() {
        let mut users = Users::default();
        users.add(account("alice", "hers"));
        assert!(users.add_anybody(secret("shared"), Addresses::Pool));
        assert!(!users.add_anybody(secret("other"), Addresses::Pool));
        assert_eq!(
            log_in(&users, b"LAB\\bob", "shared").ok().unwrap().user,
            "bob"
        );
        assert!(log_in(&users, b"alice", "shared").is_err());
        assert!(log_in(&users, b"alice", "hers").is_ok());
    }

    #[test]
    fn an_account_without_addresses_stays_out_after_a_right_password() {
        let mut users = Users::default();
        users.add(Account {
            addresses: Addresses::None,
            ..account("alice", "pass")
        });
        assert_eq!(
            log_in(&users, b"alice", "pass").err(),
            Some(Cause::NotPermitted)
        );
        assert_eq!(
            log_in(&users, b"alice", "guess").err(),
            Some(Cause::AuthenticationFailed)
        );
    }

    #[test]
    fn only_who_knows_the_password_hears_what_is_wrong_with_the_account() {
        let mut users = Users::default();
        users.add(Account {
            standing: Standing {
                disabled: true,
                ..Standing::default()
            },
            ..account("alice", "pass")
        });
        assert_eq!(
            log_in(&users, b"alice", "pass").err(),
            Some(Cause::AccountDisabled)
        );
        assert_eq!(
            log_in(&users, b"alice", "guess").err(),
            Some(Cause::AuthenticationFailed)
        );
    }

    #[test]
    fn what_is_hashed_is_what_was_sent_whatever_is_looked_up() {
        let mut users = Users::new(Names {
            realm: Part::Strip,
            case: Case::Lower,
            second_encoding: encoding("windows-1251"),
            ..Names::default()
        });
        assert!(users.add(account("Иван", "пароль 𝄞")));
        assert!(!users.add(account("иван", "another")));
        for name in [
            "иван".as_bytes(),
            "ИВАН@example.org".as_bytes(),
            b"HQ\\\xc8\xe2\xe0\xed",
            b"\xe8\xe2\xe0\xed@hq",
        ] {
            let admission = log_in(&users, name, "пароль 𝄞").ok().unwrap();
            assert_eq!(admission.user, "Иван");
            assert!(log_in(&users, name, "пароль").is_err());
        }
        // Another case of the name is looked up alike, but hashed as it came.
        let (challenge, peer_challenge) = ([7; 16], [9; 16]);
        let hash = NtHash::from_password("пароль 𝄞");
        let credentials = Credentials::MsChapV2 {
            identifier: 1,
            name: "ИВАН".as_bytes().to_vec(),
            challenge,
            peer_challenge,
            nt_response: mschap::nt_response(&hash, &challenge, &peer_challenge, "иван".as_bytes()),
        };
        assert_eq!(
            users.authenticate(&credentials, NOON).err(),
            Some(Cause::AuthenticationFailed)
        );
    }

    #[test]
    fn the_empty_name_and_the_longest() {
        let mut users = Users::default();
        let long = "x".repeat(253);
        users.add(account(&long, "pass"));
        users.add_anybody(secret("shared"), Addresses::Pool);
        assert_eq!(
            log_in(&users, long.as_bytes(), "pass")
                .ok()
                .unwrap()
                .user
                .len(),
            64
        );
        let with_domain = format!("{}\\{long}", "D".repeat(253));
        assert!(log_in(&users, with_domain.as_bytes(), "pass").is_ok());
        for nobody in [&b""[..], b"HQ\\"] {
            assert_eq!(
                log_in(&users, nobody, "shared").err(),
                Some(Cause::AuthenticationFailed)
            );
        }
    }

    #[test]
    fn knows_whose_addresses_are_fixed() {
        let mut users = Users::default();
        users.add(account("alice", "pass"));
        let range = Range::single(Ipv4Addr::new(10, 0, 0, 9));
        users.add(Account {
            addresses: Addresses::Fixed(vec![range]),
            ..account("bob", "pass")
        });
        assert_eq!(users.fixed().collect::<Vec<_>>(), [range]);
    }
}
