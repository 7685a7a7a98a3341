//! Users that this server knows by itself.

use std::collections::HashMap;

use turnpike_protocol::mschap::{self, NtHash};

use super::{Account, Addresses, Admission, Secret};
use crate::cause::Cause;
use crate::pool::Range;

/// What a client offers as proof of its password (RFC 2759 §4), with our challenge.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The name as it was on the wire, perhaps with `DOMAIN\` in front.
    pub name: &'a [u8],
    /// Our challenge.
    pub challenge: &'a [u8; 16],
    /// The client's challenge.
    pub peer_challenge: &'a [u8; 16],
    /// The response.
    pub nt_response: &'a [u8; 24],
}

/// All users, of the configuration file and of `chap-secrets`.
#[derive(Clone, Default)]
pub struct Users {
    accounts: HashMap<Vec<u8>, Account>,
    /// The account of everybody whose name stands nowhere (client `*` of a `chap-secrets` file).
    anybody: Option<(Secret, Addresses)>,
}

impl Users {
    /// Adds a user; `false`, and nothing is changed, when there is one of this name.
    pub fn add(&mut self, account: Account) -> bool {
        if self.accounts.contains_key(&account.name) {
            return false;
        }
        self.accounts.insert(account.name.clone(), account);
        true
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

    /// Addresses that belong to certain users, in no order; nobody else may get them.
    pub fn fixed(&self) -> impl Iterator<Item = Range> {
        let own = self.accounts.values().map(|account| &account.addresses);
        let all = own.chain(self.anybody.iter().map(|(_, addresses)| addresses));
        all.filter_map(|addresses| match addresses {
            Addresses::Fixed(ranges) => Some(ranges.iter().copied()),
            Addresses::Pool | Addresses::None => None,
        })
        .flatten()
    }

    /// Looks a name up: as it is first, then without `DOMAIN\`.
    fn find<'a>(&'a self, name: &'a [u8]) -> Option<(&'a [u8], &'a Secret, &'a Addresses)> {
        let user_part = mschap::user_part(name);
        let account = self
            .accounts
            .get(name)
            .or_else(|| self.accounts.get(user_part));
        match (account, &self.anybody) {
            (Some(account), _) => Some((&account.name, &account.secret, &account.addresses)),
            (None, Some((secret, addresses))) => Some((user_part, secret, addresses)),
            (None, None) => None,
        }
    }

    /// Checks a response.
    ///
    /// # Errors
    /// [`Cause::AuthenticationFailed`] for a wrong password and an unknown user alike, after the same work;
    /// [`Cause::NotPermitted`] for a right password of an account that allows no address.
    pub fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Admission, Cause> {
        // An unknown name costs the same hashes and DES blocks as a wrong password, so that the time of an answer
        // does not tell which names exist.
        let nobody = Secret(NtHash::from_bytes([0; 16]));
        let found = self.find(attempt.name);
        let secret = found.map_or(&nobody, |(_, secret, _)| secret);
        let success = mschap::verify(
            &secret.0,
            attempt.challenge,
            attempt.peer_challenge,
            attempt.nt_response,
            attempt.name,
        );
        // The hash of nobody is no secret: a response that fits it proves nothing.
        let (Some((name, _, addresses)), Some(success)) = (found, success) else {
            return Err(Cause::AuthenticationFailed);
        };
        if *addresses == Addresses::None {
            return Err(Cause::NotPermitted);
        }
        Ok(Admission {
            user: readable(name),
            success,
            addresses: addresses.clone(),
        })
    }
}

/// A name for logs: what is no text, or would move the cursor, is replaced.
fn readable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use zeroize::Zeroizing;

    use super::*;

    fn secret(password: &str) -> Secret {
        Secret::new(&Zeroizing::new(password.to_owned())).unwrap()
    }

    fn account(name: &str, password: &str) -> Account {
        Account {
            name: name.as_bytes().to_vec(),
            secret: secret(password),
            addresses: Addresses::Pool,
        }
    }

    /// Logs in as a client would.
    fn log_in(users: &Users, name: &[u8], password: &str) -> Result<Admission, Cause> {
        let (challenge, peer_challenge) = ([7; 16], [9; 16]);
        let hash = NtHash::from_password(password);
        users.authenticate(&Attempt {
            name,
            challenge: &challenge,
            peer_challenge: &peer_challenge,
            nt_response: &mschap::nt_response(&hash, &challenge, &peer_challenge, name),
        })
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
    fn the_hash_of_nobody_opens_nothing() {
        let users = Users::default();
        let (challenge, peer_challenge) = ([7; 16], [9; 16]);
        let nobody = NtHash::from_bytes([0; 16]);
        let outcome = users.authenticate(&Attempt {
            name: b"alice",
            challenge: &challenge,
            peer_challenge: &peer_challenge,
            nt_response: &mschap::nt_response(&nobody, &challenge, &peer_challenge, b"alice"),
        });
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
            "andr\u{fffd}"
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
