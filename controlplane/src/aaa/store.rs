//! The users of a running server: looked up, read again, and their passwords changed.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use jiff::civil::{Date, DateTime};
use turnpike_protocol::mschap::NtHash;
use turnpike_protocol::ppp::{ChangePassword, Credentials, Unproved};
use zeroize::Zeroizing;

use super::replace::{Unchanged, replace};
use super::{Account, Addresses, Admission, Expiry, Home, Secret, Users, printable};
use crate::cause::Cause;
use crate::config::{Entry, Faults, Finding, Form, Roster, parse_users};
use crate::pool::Range;

/// What new passwords must be like, and how long they are good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PasswordRules {
    /// The least number of characters.
    pub min_length: usize,
    /// Days until a changed password expires, of accounts with `password_expires`; `None`: never.
    pub lifetime_days: Option<i32>,
}

impl Default for PasswordRules {
    fn default() -> Self {
        Self {
            min_length: 8,
            lifetime_days: None,
        }
    }
}

impl PasswordRules {
    fn expiry(&self, today: Date) -> Expiry {
        self.lifetime_days.map_or(Expiry::Never, |days| {
            Expiry::On(today.saturating_add(jiff::Span::new().days(days)))
        })
    }
}

/// A new password on its way into the store.
#[derive(Clone, Copy)]
struct Changing<'a> {
    /// The name as it was on the wire.
    name: &'a [u8],
    /// What the client has proved to know.
    old: &'a Secret,
    /// What it wants instead.
    new: &'a str,
}

/// All users that this server knows by itself.
pub struct Store {
    users: RwLock<Users>,
    roster: Roster,
    rules: PasswordRules,
    /// Held from reading files to taking over what was read, so that nothing older follows.
    files: Mutex<()>,
}

/// Users that never change.
impl From<Users> for Store {
    fn from(users: Users) -> Self {
        Self::new(users, Roster::default(), PasswordRules::default())
    }
}

impl Store {
    /// `users` are what the files of `roster` hold.
    pub fn new(users: Users, roster: Roster, rules: PasswordRules) -> Self {
        Self {
            users: RwLock::new(users),
            roster,
            rules,
            files: Mutex::new(()),
        }
    }

    fn users(&self) -> RwLockReadGuard<'_, Users> {
        // What is done under the lock does not panic half-way.
        self.users.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where users come from.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Runs `look` on the users as they are now; changes wait for it.
    pub fn with<T>(&self, look: impl FnOnce(&Users) -> T) -> T {
        look(&self.users())
    }

    /// [`Users::knows`].
    pub fn knows(&self, wire: &[u8]) -> bool {
        self.users().knows(wire)
    }

    /// [`Users::authenticate`] at `now`, by the machine's clock.
    ///
    /// # Errors
    /// The same.
    pub fn authenticate(
        &self,
        credentials: &Credentials,
        now: DateTime,
    ) -> Result<Admission, Cause> {
        self.users().authenticate(credentials, now)
    }

    /// Addresses that belong to certain users.
    pub fn fixed(&self) -> Vec<Range> {
        self.users().fixed().collect()
    }

    /// Reads the files again; answers with warnings. Blocks on the disk.
    ///
    /// # Errors
    /// All faults of all files; the users stay as they were.
    pub fn reload(&self) -> Result<Vec<Finding>, Faults> {
        let _files = self.files();
        let (users, warnings) = self.roster.read()?;
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = users;
        Ok(warnings)
    }

    /// Changes a password, in the file first; answers as to a login with the new one. Blocks on the disk. `now` is by
    /// the machine's clock.
    ///
    /// # Errors
    /// Nothing has changed. [`Cause::AuthenticationFailed`] when the client does not know the old password,
    /// [`Cause::PasswordUnfit`], [`Cause::PasswordFixed`], [`Cause::PasswordChangedElsewhere`],
    /// [`Cause::PasswordNotWritten`] (the log says why), or what the account's standing says.
    pub fn change(&self, change: &ChangePassword, now: DateTime) -> Result<Admission, Cause> {
        let account = self.users().find(&change.name).cloned();
        let account = account.ok_or(Cause::AuthenticationFailed)?;
        let changed = change
            .open(&account.secret.0)
            .map_err(|unproved| match unproved {
                Unproved::NewPasswordNotText => Cause::PasswordUnfit,
                _ => Cause::AuthenticationFailed,
            })?;
        if account.addresses == Addresses::None {
            return Err(Cause::NotPermitted);
        }
        let changing = Changing {
            name: &change.name,
            old: &account.secret,
            new: changed.password.as_str(),
        };
        self.write(&changing, now)?;
        let user = printable(&account.name);
        tracing::info!(user, "password changed");
        Ok(Admission {
            user,
            proof: changed.proof,
            addresses: account.addresses,
            entitlements: None,
        })
    }

    /// Stores a new password. Whoever asks has checked that the client knows `old`, which is compared with the file
    /// all the same: it may have been edited.
    fn write(&self, change: &Changing<'_>, now: DateTime) -> Result<(), Cause> {
        let _files = self.files();
        let account = self
            .users()
            .find(change.name)
            .cloned()
            .ok_or(Cause::AuthenticationFailed)?;
        account.standing.judge_but_for_password(now)?;
        let path = self
            .roster
            .users_file()
            .filter(|_| account.home == Home::UsersFile)
            .ok_or(Cause::PasswordFixed)?;
        let secret = self.fit(change)?;
        let edit = Edit {
            store: self,
            file: path.display().to_string(),
            account: &account,
            change,
            secret: &secret,
            now,
        };
        let mut changed = None;
        let written = replace(path, |text| {
            let (text, account) = edit.apply(text)?;
            changed = Some(account);
            Ok(text)
        });
        match written {
            Ok(()) => {}
            Err(Unchanged::Refused(Refused::For(cause))) => return Err(cause),
            Err(Unchanged::Refused(Refused::Broken(faults))) => {
                for fault in &faults.0 {
                    tracing::error!("a changed password cannot be written: {fault}");
                }
                return Err(Cause::PasswordNotWritten);
            }
            Err(error) => {
                let file = path.display();
                tracing::error!(%error, "a changed password cannot be written to {file}");
                return Err(Cause::PasswordNotWritten);
            }
        }
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = changed {
            users.replace(account);
        }
        Ok(())
    }

    /// The new password, if it may be one.
    fn fit(&self, change: &Changing<'_>) -> Result<Secret, Cause> {
        let secret = Secret::new(change.new).ok_or(Cause::PasswordUnfit)?;
        if change.new.chars().count() < self.rules.min_length || secret.is(change.old) {
            return Err(Cause::PasswordUnfit);
        }
        Ok(secret)
    }
}

/// Why a file is not changed.
enum Refused {
    /// The client hears of it.
    For(Cause),
    /// The operator does: somebody has broken the file since it was read.
    Broken(Faults),
}

/// A change to be made in whatever the file holds by now.
struct Edit<'a> {
    store: &'a Store,
    file: String,
    account: &'a Account,
    change: &'a Changing<'a>,
    secret: &'a Secret,
    now: DateTime,
}

impl Edit<'_> {
    /// The new text, and the account in it.
    fn apply(&self, text: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Account), Refused> {
        let entry = self.entry(text)?;
        if !entry.account.secret.is(self.change.old) {
            return Err(Refused::For(Cause::PasswordChangedElsewhere));
        }
        entry
            .account
            .standing
            .judge_but_for_password(self.now)
            .map_err(Refused::For)?;
        let expiry = self.store.rules.expiry(self.now.date());
        let new = rewrite(text, &entry, self.change.new, expiry);
        // Read as it will be at the next start: what is not the new password must never be stored as one.
        let entry = self.entry(&new)?;
        if !entry.account.secret.is(self.secret) {
            return Err(Refused::For(Cause::PasswordNotWritten));
        }
        Ok((new, entry.account))
    }

    fn entry(&self, text: &[u8]) -> Result<Entry, Refused> {
        let case = self.store.users().names().case;
        let text = core::str::from_utf8(text).map_err(|_| {
            Refused::Broken(Faults(vec![Finding {
                file: self.file.clone(),
                line: 0,
                what: "the file is not UTF-8 any more".to_owned(),
                instead: "save it as UTF-8".to_owned(),
            }]))
        })?;
        let entries = parse_users(text, &self.file, case).map_err(Refused::Broken)?;
        let name = case.fold(&self.account.name);
        entries
            .into_iter()
            .find(|entry| case.fold(&entry.account.name) == name)
            .ok_or(Refused::For(Cause::PasswordChangedElsewhere))
    }
}

/// The text with another password for an entry, in the form that it has there, and another day of expiry if it has
/// one. All else, comments too, is left as it is.
fn rewrite(text: &[u8], entry: &Entry, new: &str, expiry: Expiry) -> Zeroizing<Vec<u8>> {
    let secret = match entry.form {
        Form::Password => quoted(new),
        Form::NtHash => hash(new),
    };
    let expiry = match expiry {
        Expiry::Never => "\"never\"".to_owned(),
        Expiry::On(day) => day.to_string(),
    };
    let mut changes = vec![(&entry.secret_at, secret.as_bytes())];
    changes.extend(entry.expires_at.as_ref().map(|at| (at, expiry.as_bytes())));
    changes.sort_by_key(|(at, _)| at.start);
    // All room at once: growing would leave copies of passwords behind.
    let room = text.len() + secret.len() + expiry.len();
    let mut rewritten = Zeroizing::new(Vec::with_capacity(room));
    let mut from = 0;
    for (at, value) in changes {
        rewritten.extend_from_slice(&text[from..at.start]);
        rewritten.extend_from_slice(value);
        from = at.end;
    }
    rewritten.extend_from_slice(&text[from..]);
    rewritten
}

/// A basic string of TOML.
fn quoted(text: &str) -> Zeroizing<String> {
    let mut quoted = Zeroizing::new(String::with_capacity(text.len() * 6 + 2));
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            '\0'..' ' | '\x7f' => {
                quoted.push_str("\\u00");
                for shift in [4, 0] {
                    let digit = u32::from(character) >> shift & 0xf;
                    quoted.extend(char::from_digit(digit, 16));
                }
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

/// The NT hash of a password, as a string of TOML.
fn hash(password: &str) -> Zeroizing<String> {
    let hash = NtHash::from_password(password);
    let mut digits = Zeroizing::new(String::with_capacity(34));
    digits.push('"');
    for octet in hash.bytes() {
        for shift in [4, 0] {
            digits.extend(char::from_digit(u32::from(octet >> shift & 0xf), 16));
        }
    }
    digits.push('"');
    digits
}

#[cfg(test)]
mod tests;
