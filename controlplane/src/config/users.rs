//! `[[user]]`, in the configuration and in the file of `auth.users_file`.

use core::net::Ipv4Addr;
use core::ops::Range as Span;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::civil::Date;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::Faults;
use super::network::{ADDRESS, host_address};
use super::parse::must;
use super::pools::pool_name;
use super::read::{Reader, Section, kind};
use crate::aaa::{Account, Addresses, Case, Expiry, Home, Hours, Secret, Standing};
use crate::pool::Range;

/// Where a `[[user]]` stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing is ever written there.
    Configuration,
    /// Changed passwords are written there.
    UsersFile,
}

/// Addresses that no further user can have.
#[derive(Clone, Default)]
pub(super) struct Claims {
    /// Our inner address; `None` while it is not known, and then nothing is checked.
    pub(super) server_address: Option<Ipv4Addr>,
    /// The addresses that clients dial.
    pub(super) listen: Vec<Ipv4Addr>,
    /// The names of all pools; `None` while they are not known.
    pub(super) pools: Option<Vec<Arc<str>>>,
    /// Addresses of users, and whose they are.
    pub(super) owners: HashMap<Ipv4Addr, String>,
}

impl Claims {
    /// Whose an address is, in words.
    fn taken(&self, address: Ipv4Addr) -> Option<String> {
        let server_address = self.server_address?;
        if address == server_address {
            Some("server_address".to_owned())
        } else if self.listen.contains(&address) {
            Some("an address clients dial".to_owned())
        } else {
            let owner = self.owners.get(&address)?;
            Some(format!("the address of user {owner:?}"))
        }
    }
}

/// A user, and where what can be rewritten stands.
pub(crate) struct Entry {
    /// The user.
    pub(crate) account: Account,
    /// The line of the name.
    pub(crate) line: usize,
    /// How the password is written.
    pub(crate) form: Form,
    /// Where the value of `password` or `nt_hash` stands, in octets.
    pub(crate) secret_at: Span<usize>,
    /// Where the value of `password_expires` stands, if it does.
    pub(crate) expires_at: Option<Span<usize>>,
}

/// How a password is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// `password`, a string.
    Password,
    /// `nt_hash`, 32 hexadecimal digits.
    NtHash,
}

/// Reads a file that holds nothing but `[[user]]`; `name` is what findings call it. Addresses are compared with
/// `claims` and with each other.
pub(super) fn users_file(
    text: &str,
    name: &str,
    case: Case,
    mut claims: Claims,
) -> Result<Vec<Entry>, Faults> {
    let mut reader = Reader::new(name, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        reader.fault(&span, error.message(), "write it as TOML wants it");
    }
    let broken = !reader.faults.is_empty();
    let mut document = Section::new("", 0..0, document.into_inner());
    let sections = document.tables(&mut reader, "user", "[[user]]");
    document.finish(&mut reader);
    let place = Place::UsersFile;
    let entries = users_of(&mut reader, sections, &mut claims, place, case, broken);
    let mut faults = reader.faults;
    if faults.is_empty() {
        return Ok(entries);
    }
    faults.sort_by_key(|fault| fault.line);
    faults.dedup();
    Err(Faults(faults))
}

/// The same, without a look at addresses: for a file whose users are known already.
pub(crate) fn parse_users(text: &str, name: &str, case: Case) -> Result<Vec<Entry>, Faults> {
    users_file(text, name, case, Claims::default())
}

/// Reads all users. Those that are there twice have a fault, and come once.
pub(super) fn users_of(
    reader: &mut Reader<'_>,
    sections: Vec<Section<'_>>,
    claims: &mut Claims,
    place: Place,
    case: Case,
    broken: bool,
) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut seen = HashSet::new();
    for mut section in sections {
        let has = section.has("name");
        let name = section.text(
            reader,
            "name",
            "write the name as the client's user types it, 1 to 255 octets",
            // RFC 2865 §5.1 and every client known stay below.
            |text| (1..=255).contains(&text.len()).then(|| text.to_owned()),
        );
        let name = must(
            reader,
            name,
            has,
            broken,
            section.span(),
            "`name` in [[user]]",
            "write name = \"alice\"",
        );
        let secret = secret_of(reader, &mut section, broken);
        let address = section.text(reader, "address", ADDRESS, host_address);
        let pool = pool_of(reader, &mut section, claims, address.is_some());
        let (standing, expires_at) = standing_of(reader, &mut section, place);
        section.finish(reader);
        if let Some(address) = &address
            && let Some(taken) = claims.taken(address.value)
        {
            reader.fault(
                &address.span,
                format!("`address` in [[user]] is {}, {taken}", address.value),
                "write an address of its own, or leave it out to use the pool",
            );
        }
        let (Some(name), Some((secret, form, secret_at))) = (name, secret) else {
            continue;
        };
        if let Some(address) = &address {
            claims.owners.insert(address.value, name.value.clone());
        }
        if !seen.insert(case.fold(name.value.as_bytes())) {
            reader.fault(
                &name.span,
                format!("user {:?} is there twice", name.value),
                "leave one of them out",
            );
            continue;
        }
        entries.push(Entry {
            account: Account {
                addresses: match (address, pool) {
                    (Some(address), _) => Addresses::Fixed(vec![Range::single(address.value)]),
                    (None, Some(pool)) => Addresses::Named(pool),
                    (None, None) => Addresses::Pool,
                },
                standing,
                home: match place {
                    Place::Configuration => Home::ReadOnly,
                    Place::UsersFile => Home::UsersFile,
                },
                ..Account::new(name.value, secret)
            },
            line: reader.line(&name.span),
            form,
            secret_at,
            expires_at,
        });
    }
    entries
}

/// The pool of a user.
fn pool_of(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    claims: &Claims,
    has_address: bool,
) -> Option<Arc<str>> {
    let pool = section.text(
        reader,
        "pool",
        "write the `name` of a [[pool]], or leave it out for the one of [network]",
        pool_name,
    )?;
    if has_address {
        reader.fault(
            &pool.span,
            "`pool` in [[user]] stands beside an address",
            "leave one of them out",
        );
    }
    let pools = claims.pools.as_deref();
    if pools.is_some_and(|pools| pools.iter().all(|name| **name != *pool.value)) {
        reader.fault(
            &pool.span,
            format!("`pool` in [[user]] is {:?}, which there is not", pool.value),
            "write the `name` of a [[pool]], or leave it out for the one of [network]",
        );
    }
    Some(pool.value.into())
}

/// What restricts a user, and where `password_expires` stands.
fn standing_of(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    place: Place,
) -> (Standing, Option<Span<usize>>) {
    let disabled = section.flag(
        reader,
        "disabled",
        "write true to keep the user out, or leave the key out",
    );
    let dial_in = section.flag(
        reader,
        "dial_in",
        "write false for a user who must not dial in, or leave the key out",
    );
    let faults = reader.faults.len();
    let hours = section.texts(
        reader,
        "hours",
        "days and times of this machine's clock such as \"Mon-Fri 08:00-18:00\" or \"daily 22:00-06:00\"",
        |text| text.parse::<Hours>().ok(),
    );
    if let Some(hours) = &hours
        && hours.value.is_empty()
        && reader.faults.len() == faults
    {
        reader.fault(
            &hours.span,
            "`hours` in [[user]] has none",
            "leave the key out for a user who may log on at any time; to keep a user out, write disabled = true",
        );
    }
    let mut standing = Standing {
        disabled: disabled.unwrap_or(false),
        no_dial_in: dial_in == Some(false),
        hours: hours
            .map(|hours| hours.value.iter().map(|hours| hours.value).collect())
            .unwrap_or_default(),
        password: Expiry::Never,
    };
    let Some(value) = section.take("password_expires") else {
        return (standing, None);
    };
    let span = value.span();
    if place == Place::Configuration {
        reader.fault(
            &span,
            "`password_expires` is for users who can change their password, which is never written here",
            "move the user to the file of `users_file` in [auth]",
        );
        return (standing, None);
    }
    match expiry(value.get_ref()) {
        Some(expiry) => standing.password = expiry,
        None => reader.fault(
            &span,
            format!("`password_expires` in [[user]] is {}", kind(value.get_ref())),
            "write the first day on which the password is not good any more, password_expires = 2027-01-31, or \"never\"",
        ),
    }
    (standing, Some(span))
}

fn expiry(value: &DeValue<'_>) -> Option<Expiry> {
    match value {
        DeValue::String(text) if text == "never" => Some(Expiry::Never),
        DeValue::Datetime(when) if when.time.is_none() && when.offset.is_none() => {
            let date = when.date?;
            let (year, month, day) = (
                i16::try_from(date.year).ok()?,
                i8::try_from(date.month).ok()?,
                i8::try_from(date.day).ok()?,
            );
            Date::new(year, month, day).ok().map(Expiry::On)
        }
        _ => None,
    }
}

/// The password of a user, or its hash. Never shown, not even in part.
fn secret_of(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    broken: bool,
) -> Option<(Secret, Form, Span<usize>)> {
    const INSTEAD: &str = "write password = \"...\", 1 to 256 characters";
    const HASH: &str =
        "write the 32 hexadecimal digits of the NT hash, or password = \"...\" in its place";
    let hash = section.take("nt_hash");
    let value = section.take("password");
    if let Some(hash) = hash {
        let span = hash.span();
        if value.is_some() {
            reader.fault(
                &span,
                "`nt_hash` in [[user]] stands beside a password",
                "leave one of them out",
            );
            return None;
        }
        let secret = match hash.into_inner() {
            DeValue::String(text) => nt_hash(&text),
            _ => None,
        };
        if secret.is_none() {
            reader.fault(&span, "`nt_hash` in [[user]] is no NT hash", HASH);
        }
        return Some((secret?, Form::NtHash, span));
    }
    let taken = value.is_some();
    let value = must(
        reader,
        value,
        taken,
        broken,
        section.span(),
        "`password` in [[user]]",
        INSTEAD,
    )?;
    let span = value.span();
    let password = match value.into_inner() {
        // An owned text is one that had escapes; it is cleaned like the copy of a borrowed one.
        DeValue::String(Cow::Owned(text)) => Zeroizing::new(text),
        DeValue::String(Cow::Borrowed(text)) => Zeroizing::new(text.to_owned()),
        _ => {
            reader.fault(&span, "`password` in [[user]] is not a string", INSTEAD);
            return None;
        }
    };
    let secret = Secret::new(&password);
    if secret.is_none() {
        reader.fault(
            &span,
            "`password` in [[user]] is empty or longer than 256 characters",
            INSTEAD,
        );
    }
    Some((secret?, Form::Password, span))
}

fn nt_hash(text: &str) -> Option<Secret> {
    let mut hash = Zeroizing::new([0; 16]);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    if pairs.len() != hash.len() {
        return None;
    }
    for (octet, pair) in hash.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *octet = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(Secret::from_nt_hash(*hash))
}
