//! `[auth]`: how clients prove who they are.

use core::time::Duration;
use std::path::PathBuf;

use encoding_rs::Encoding;
use turnpike_protocol::mppe::{Allowed, Policy};

use super::Auth;
use super::login::login_of;
use super::mppe::{allowed_of, policy_of};
use super::read::{Reader, Section};
use crate::aaa::{Backend, Case, Login, Names, Part, PasswordRules, encoding};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn auth_of(
    reader: &mut Reader<'_>,
    section: Option<Section<'_>>,
    has_radius: bool,
) -> Auth {
    let mut auth = Auth {
        mppe: Policy::Require,
        mppe_allowed: Allowed::default(),
        login: Login::default(),
        chap_secrets: None,
        users_file: None,
        retry: true,
        names: Names::default(),
        passwords: PasswordRules::default(),
        backends: match has_radius {
            true => vec![Backend::Local, Backend::Radius],
            false => vec![Backend::Local],
        },
    };
    let Some(mut section) = section else {
        return auth;
    };
    auth.mppe = policy_of(reader, &mut section);
    auth.mppe_allowed = allowed_of(reader, &mut section);
    auth.login = login_of(reader, &mut section, auth.mppe);
    auth.chap_secrets = path_of(
        reader,
        &mut section,
        "chap_secrets",
        "write the path of a file, such as \"/etc/turnpike/chap-secrets\"",
    );
    auth.users_file = path_of(
        reader,
        &mut section,
        "users_file",
        "write the path of a file, such as \"/var/lib/turnpike/users.toml\"",
    );
    auth.retry = section
        .flag(
            reader,
            "retry",
            "write true or false: whether a client may try another password in the same call",
        )
        .unwrap_or(auth.retry);
    if let Some(names) = section.table(reader, "names", "[auth.names]") {
        auth.names = names_of(reader, names);
    }
    if let Some(passwords) = section.table(reader, "passwords", "[auth.passwords]") {
        auth.passwords = passwords_of(reader, passwords);
    }
    if let Some(backends) = backends_of(reader, &mut section, has_radius) {
        auth.backends = backends;
    }
    section.finish(reader);
    auth
}

fn backends_of(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    has_radius: bool,
) -> Option<Vec<Backend>> {
    const BACKENDS: &[(&str, Backend)] = &[("local", Backend::Local), ("radius", Backend::Radius)];
    let faults = reader.faults.len();
    let found = section.texts(reader, "backends", "\"local\" or \"radius\"", |text| {
        let known = BACKENDS.iter().find(|(word, _)| *word == text);
        known.map(|(_, backend)| *backend)
    })?;
    let mut backends = Vec::new();
    for backend in &found.value {
        if backends.contains(&backend.value) {
            reader.fault(
                &backend.span,
                "a back end stands in `backends` in [auth] twice",
                "write each once, in the order in which they are asked",
            );
        }
        if backend.value == Backend::Radius && !has_radius {
            reader.fault(
                &backend.span,
                "`backends` in [auth] has \"radius\", but there is no [radius] section",
                "add [[radius.server]] with address = \"192.0.2.9\" and secret = \"...\", or take it out",
            );
        }
        backends.push(backend.value);
    }
    if backends.is_empty() && reader.faults.len() == faults {
        reader.fault(
            &found.span,
            "`backends` in [auth] is empty: nobody could log in",
            "write backends = [\"local\", \"radius\"], or leave the key out",
        );
    }
    Some(backends)
}

fn path_of(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    key: &'static str,
    instead: &str,
) -> Option<PathBuf> {
    let path = section.text(reader, key, instead, |text| {
        (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
    });
    path.map(|path| path.value)
}

fn names_of(reader: &mut Reader<'_>, mut section: Section<'_>) -> Names {
    const PARTS: &[(&str, Part)] = &[("strip", Part::Strip), ("keep", Part::Keep)];
    let mut names = Names::default();
    if let Some(domain) = section.choice(reader, "domain", PARTS) {
        names.domain = domain.value;
    }
    if let Some(realm) = section.choice(reader, "realm", PARTS) {
        names.realm = realm.value;
    }
    let cases = [("keep", Case::Keep), ("lower", Case::Lower)];
    if let Some(case) = section.choice(reader, "case", &cases) {
        names.case = case.value;
    }
    if let Some(encoding) = encoding_of(reader, &mut section, "encoding") {
        names.encoding = encoding;
    }
    names.second_encoding = encoding_of(reader, &mut section, "second_encoding")
        .filter(|second| *second != names.encoding);
    section.finish(reader);
    names
}

fn encoding_of(
    reader: &mut Reader<'_>,
    section: &mut Section<'_>,
    key: &'static str,
) -> Option<&'static Encoding> {
    let encoding = section.text(
        reader,
        key,
        "write an encoding by its usual name: \"utf-8\", \"windows-1251\", \"iso-8859-1\", \"koi8-r\", \"shift_jis\"",
        encoding,
    );
    encoding.map(|encoding| encoding.value)
}

fn passwords_of(reader: &mut Reader<'_>, mut section: Section<'_>) -> PasswordRules {
    let mut rules = PasswordRules::default();
    let min_length = section.number(
        reader,
        "min_length",
        1..=128,
        "write how many characters a new password must have at least: 8",
    );
    if let Some(length) = min_length.and_then(|length| usize::try_from(length.value).ok()) {
        rules.min_length = length;
    }
    let lifetime = section.duration(reader, "lifetime", DAY..=DAY * 3653, "90days");
    rules.lifetime_days = lifetime
        .and_then(|lifetime| i32::try_from(lifetime.value.as_secs().div_ceil(DAY.as_secs())).ok());
    section.finish(reader);
    rules
}
