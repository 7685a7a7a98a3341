//! Methods in `[auth]`: by what clients prove who they are.

use core::time::Duration;

use turnpike_protocol::mppe::Policy;
use turnpike_protocol::ppp::AuthProtocol;

use super::read::{At, Reader, Section};
use super::{Auth, Finding};
use crate::aaa::{Login, Users};

/// Users that one warning names.
const NAMED: usize = 3;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const METHODS: &[(&str, AuthProtocol)] = &[
    ("ms-chap-v2", AuthProtocol::MsChapV2),
    ("ms-chap-v1", AuthProtocol::MsChapV1),
    ("chap-md5", AuthProtocol::ChapMd5),
    ("pap", AuthProtocol::Pap),
];

fn word(method: AuthProtocol) -> &'static str {
    let known = METHODS.iter().find(|(_, known)| *known == method);
    known.map_or("?", |(word, _)| word)
}

pub(super) fn login_of(reader: &mut Reader<'_>, section: &mut Section<'_>, mppe: Policy) -> Login {
    let mut login = Login::default();
    let faults = reader.faults.len();
    let methods = section.texts(
        reader,
        "methods",
        "\"ms-chap-v2\", \"ms-chap-v1\", \"chap-md5\" or \"pap\"",
        |text| {
            let known = METHODS.iter().find(|(word, _)| *word == text);
            known.map(|(_, method)| *method)
        },
    );
    let rechallenge = section.duration(reader, "rechallenge", MINUTE..=DAY, "1h");
    if reader.faults.len() > faults {
        return login;
    }
    if let Some(methods) = methods {
        login.methods = methods_of(reader, &methods, mppe);
    }
    let usable = |method: &&AuthProtocol| mppe != Policy::Require || method.gives_keys();
    let usable: Vec<AuthProtocol> = login.methods.iter().filter(usable).copied().collect();
    if let Some(rechallenge) = rechallenge {
        login.rechallenge = Some(rechallenge.value);
        if usable.iter().all(|method| *method == AuthProtocol::Pap) {
            reader.fault(
                &rechallenge.span,
                "`rechallenge` in [auth] is for CHAP only: PAP has no challenge",
                "take it out, or add \"ms-chap-v2\" to `methods`",
            );
        }
    }
    login
}

/// Warns of users who cannot log in by CHAP-MD5, which needs their password, while clients are asked for it; `file` is
/// the configuration's name.
pub(super) fn hash_only(auth: &Auth, users: &Users, file: &str) -> Option<Finding> {
    let asked = auth.mppe != Policy::Require && auth.login.methods.contains(&AuthProtocol::ChapMd5);
    let names = asked.then(|| users.hash_only())?;
    let (named, others) = names.split_at(names.len().min(NAMED));
    let mut who: Vec<_> = named.iter().map(|name| format!("\"{name}\"")).collect();
    let last = match others.len() {
        0 => who.pop()?,
        1 => "1 other".to_owned(),
        count => format!("{count} others"),
    };
    let who = match who.is_empty() {
        true => last,
        false => format!("{} and {last}", who.join(", ")),
    };
    Some(Finding {
        file: file.to_owned(),
        line: 0,
        what: format!(
            "`methods` in [auth] has \"chap-md5\", by which {who} can never log in: only the NT hash is stored"
        ),
        instead: "write `password` in place of `nt_hash` for them, or take \"chap-md5\" out"
            .to_owned(),
    })
}

fn methods_of(
    reader: &mut Reader<'_>,
    methods: &At<Vec<At<AuthProtocol>>>,
    mppe: Policy,
) -> Vec<AuthProtocol> {
    let mut list = Vec::new();
    for method in &methods.value {
        if list.contains(&method.value) {
            reader.fault(
                &method.span,
                format!(
                    "\"{}\" stands in `methods` in [auth] twice",
                    word(method.value)
                ),
                "write it once",
            );
        }
        list.push(method.value);
    }
    if list.is_empty() {
        reader.fault(
            &methods.span,
            "`methods` in [auth] is empty: nobody could log in",
            "write methods = [\"ms-chap-v2\"], or leave the key out",
        );
    } else if mppe == Policy::Require && !list.iter().any(|method| method.gives_keys()) {
        reader.fault(
            &methods.span,
            "`methods` in [auth] has none that yields keys, and `mppe` requires encryption: nobody could log in",
            "add \"ms-chap-v2\", or write mppe = \"prefer\"",
        );
    }
    list
}
