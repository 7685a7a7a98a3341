//! Credentials held against a stored password, in every encoding in which the client may have had it.
//!
//! Passwords are text here. MS-CHAP wants them as UTF-16LE, which most clients do; PAP and CHAP-MD5 take octets, and an
//! older Windows sends and hashes those of its code page. pppd makes UTF-16 by a zero octet after each octet of
//! whatever encoding its machine has.

use encoding_rs::Encoding;
use turnpike_protocol::ppp::{Credentials, Proof, Secret, Unproved};
use zeroize::Zeroizing;

use super::Names;

/// Checks a login: as text first, then, of passwords beyond ASCII, in the encodings that clients have.
///
/// # Errors
/// As [`Credentials::verify`] has it.
pub fn prove(credentials: &Credentials, secret: &Secret, names: &Names) -> Result<Proof, Unproved> {
    let first = credentials.verify(secret);
    if !matches!(first, Err(Unproved::WrongPassword)) {
        return first;
    }
    let encodings = [Some(names.encoding), names.second_encoding];
    encodings
        .into_iter()
        .flatten()
        .find_map(|encoding| match credentials {
            Credentials::Pap { name, password } => {
                let text = text(password, encoding)?;
                let credentials = Credentials::Pap {
                    name: name.clone(),
                    password: Zeroizing::new(text.as_bytes().to_vec()),
                };
                credentials.verify(secret).ok()
            }
            _ => {
                let octets = octets(secret.password()?.as_str(), encoding)?;
                credentials.verify_octets(&octets).ok()
            }
        })
        .ok_or(Unproved::WrongPassword)
}

/// What a client sent, as text; `None` when it is text as it stands, or none in this encoding.
fn text(sent: &[u8], encoding: &'static Encoding) -> Option<Zeroizing<String>> {
    if sent.is_ascii() {
        return None;
    }
    let mut decoder = encoding.new_decoder_without_bom_handling();
    // All room at once: growing would leave copies of passwords behind.
    let room = decoder.max_utf8_buffer_length_without_replacement(sent.len())?;
    let mut text = Zeroizing::new(String::with_capacity(room));
    let (result, _) = decoder.decode_to_string_without_replacement(sent, &mut text, true);
    (result == encoding_rs::DecoderResult::InputEmpty).then_some(text)
}

/// A password as a client of this encoding has it; `None` when it is the same everywhere, or cannot be written so.
fn octets(password: &str, encoding: &'static Encoding) -> Option<Zeroizing<Vec<u8>>> {
    if password.is_ascii() {
        return None;
    }
    let mut encoder = encoding.new_encoder();
    let room = encoder.max_buffer_length_from_utf8_without_replacement(password.len())?;
    let mut octets = Zeroizing::new(Vec::with_capacity(room));
    let (result, _) =
        encoder.encode_from_utf8_to_vec_without_replacement(password, &mut octets, true);
    (result == encoding_rs::EncoderResult::InputEmpty).then_some(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use turnpike_protocol::mschap::{self, NtHash, Password};

    use super::super::encoding;
    use super::*;

    const PASSWORD: &str = "пароль";
    const CP1251: &[u8] = b"\xef\xe0\xf0\xee\xeb\xfc";

    fn names(second: &str) -> Names {
        Names {
            second_encoding: encoding(second),
            ..Names::default()
        }
    }

    fn password() -> Secret {
        Password::new(PASSWORD).into()
    }

    fn hash() -> Secret {
        NtHash::from_password(PASSWORD).into()
    }

    fn pap(password: &[u8]) -> Credentials {
        Credentials::Pap {
            name: b"ivan".to_vec(),
            password: Zeroizing::new(password.to_vec()),
        }
    }

    /// As an MS-CHAPv2 client does that has this for a hash.
    fn mschap(hash: &NtHash) -> Credentials {
        let (challenge, peer_challenge) = ([7; 16], [9; 16]);
        Credentials::MsChapV2 {
            identifier: 1,
            name: b"ivan".to_vec(),
            challenge,
            peer_challenge,
            nt_response: mschap::nt_response(hash, &challenge, &peer_challenge, b"ivan"),
        }
    }

    /// As pppd hashes octets.
    fn widened(octets: &[u8]) -> NtHash {
        let text: String = octets.iter().map(|octet| char::from(*octet)).collect();
        NtHash::from_password(&text)
    }

    fn md5(password: &[u8]) -> Credentials {
        use md5::{Digest, Md5};
        let challenge = vec![5; 16];
        let mut hash = Md5::new();
        hash.update([3]);
        hash.update(password);
        hash.update(&challenge);
        Credentials::ChapMd5 {
            identifier: 3,
            response: hash.finalize().into(),
            challenge,
            name: b"ivan".to_vec(),
        }
    }

    #[track_caller]
    fn assert_proves(credentials: &Credentials, secret: &Secret, names: &Names, proves: bool) {
        assert_eq!(prove(credentials, secret, names).is_ok(), proves);
    }

    #[test]
    fn clients_of_a_code_page_get_in_where_it_is_configured() {
        for secret in [password(), hash()] {
            assert_proves(&pap(PASSWORD.as_bytes()), &secret, &names(""), true);
            assert_proves(&pap(CP1251), &secret, &names(""), false);
            assert_proves(&pap(CP1251), &secret, &names("windows-1251"), true);
            assert_proves(&pap(CP1251), &secret, &names("koi8-r"), false);
            assert_proves(&pap(b"\xff"), &secret, &names("windows-1251"), false);
        }
        assert_proves(&md5(PASSWORD.as_bytes()), &password(), &names(""), true);
        assert_proves(&md5(CP1251), &password(), &names(""), false);
        assert_proves(&md5(CP1251), &password(), &names("windows-1251"), true);
        let windows = mschap(&NtHash::from_password(PASSWORD));
        let pppd = mschap(&widened(PASSWORD.as_bytes()));
        let old_pppd = mschap(&widened(CP1251));
        for (credentials, configured, proves) in [
            (&windows, "", true),
            (&pppd, "", true),
            (&old_pppd, "", false),
            (&old_pppd, "windows-1251", true),
        ] {
            assert_proves(credentials, &password(), &names(configured), proves);
        }
        // From a hash no octets can be made.
        assert_proves(&windows, &hash(), &names("windows-1251"), true);
        assert_proves(&old_pppd, &hash(), &names("windows-1251"), false);
        assert_eq!(
            prove(&md5(CP1251), &hash(), &names("windows-1251")).err(),
            Some(Unproved::PasswordNotStored)
        );
    }

    #[test]
    fn keys_come_of_what_the_client_hashed() {
        let hash = widened(CP1251);
        let Credentials::MsChapV2 { nt_response, .. } = mschap(&hash) else {
            panic!("made as one");
        };
        let success = mschap::verify(&hash, &[7; 16], &[9; 16], &nt_response, b"ivan").unwrap();
        let proof = prove(&mschap(&hash), &password(), &names("windows-1251"));
        let Ok(Proof::MsChapV2 {
            authenticator_response,
            ..
        }) = proof
        else {
            panic!("not proved");
        };
        assert_eq!(authenticator_response, success.authenticator_response);
    }

    proptest! {
        #[test]
        fn any_octets_are_judged(
            sent in prop::collection::vec(any::<u8>(), 0..80),
            stored in ".{1,30}",
            second in prop::sample::select(vec!["windows-1251", "shift_jis", "gb18030", "iso-2022-jp"]),
        ) {
            let secret: Secret = Password::new(stored.as_str()).into();
            let right = prove(&pap(&sent), &secret, &names(second)).is_ok();
            let text = encoding(second).unwrap().decode_without_bom_handling_and_without_replacement(&sent);
            prop_assert_eq!(right, sent == stored.as_bytes() || text.is_some_and(|text| text == stored));
            let _ = prove(&md5(&sent), &secret, &names(second));
        }
    }
}
