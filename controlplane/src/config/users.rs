//! `[[user]]`.

use core::net::Ipv4Addr;
use std::borrow::Cow;
use std::collections::HashMap;

use toml::de::DeValue;
use zeroize::Zeroizing;

use super::network::{ADDRESS, NetworkAt, host_address};
use super::parse::must;
use super::read::{At, Reader, Section};
use crate::aaa::{Account, Addresses, Secret, Users};
use crate::pool::Range;

/// Reads all users.
pub(super) fn users_of(
    reader: &mut Reader<'_>,
    sections: Vec<Section<'_>>,
    network: Option<&NetworkAt>,
    listen: &[At<Ipv4Addr>],
    broken: bool,
) -> Users {
    let mut users = Users::default();
    let mut owners: HashMap<Ipv4Addr, String> = HashMap::new();
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
        let password = password_of(reader, &mut section, broken);
        let address = section.text(reader, "address", ADDRESS, host_address);
        let span = name
            .as_ref()
            .map_or_else(|| section.span().clone(), |name| name.span.clone());
        section.finish(reader);
        if let (Some(address), Some(network)) = (&address, network) {
            let taken = if address.value == network.network.server_address {
                Some("server_address".to_owned())
            } else if listen.iter().any(|listen| listen.value == address.value) {
                Some("an address clients dial".to_owned())
            } else {
                owners
                    .get(&address.value)
                    .map(|owner| format!("the address of user {owner:?}"))
            };
            if let Some(taken) = taken {
                reader.fault(
                    &address.span,
                    format!("`address` in [[user]] is {}, {taken}", address.value),
                    "write an address of its own, or leave it out to use the pool",
                );
            }
        }
        let (Some(name), Some(secret)) = (name, password) else {
            continue;
        };
        if let Some(address) = &address {
            owners.insert(address.value, name.value.clone());
        }
        let added = users.add(Account {
            name: name.value.clone().into_bytes(),
            secret,
            addresses: match address {
                Some(address) => Addresses::Fixed(vec![Range::single(address.value)]),
                None => Addresses::Pool,
            },
        });
        if !added {
            reader.fault(
                &span,
                format!("user {:?} is there twice", name.value),
                "leave one of them out",
            );
        }
    }
    users
}

/// The password of a user. Never shown, not even in part.
fn password_of(reader: &mut Reader<'_>, section: &mut Section<'_>, broken: bool) -> Option<Secret> {
    const INSTEAD: &str = "write password = \"...\", 1 to 256 characters";
    let value = section.take("password");
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
    secret
}
