//! What the shared secret hides: passwords (RFC 2865 §5.2) and salted keys (RFC 2548 §2.4.2, RFC 2868 §3.5).

use zeroize::Zeroizing;

use super::Secret;

/// The most octets of a hidden password (RFC 2865 §5.2).
const MAX_PASSWORD: usize = 128;

/// The most octets of a salted key: what fits into a vendor's attribute, less salt and length.
const MAX_KEY: usize = 239;

/// The top bit that every salt has (RFC 2548 §2.4.2).
const SALT_BIT: u16 = 0x8000;

/// Why something hidden cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum HiddenFault {
    /// Not a number of blocks of 16 octets, or not even a salt.
    #[error("its length is no multiple of 16 octets behind the salt")]
    Size,
    /// What comes out is no key, and the salt lacks the bit that every salt has: whatever this is, it was not hidden as RFC 2548
    /// §2.4.2 says.
    #[error("it is not salted as RFC 2548 says")]
    Salt,
    /// What comes out is no key: another secret, or another request's authenticator.
    #[error("it was hidden with another secret, or for another request")]
    Garbled,
}

/// Adds the key stream to `blocks`, whose length is a multiple of 16, in place: MD5 over secret and `start`, then over secret
/// and the hidden block before.
fn apply(secret: &Secret, start: &[&[u8]], blocks: &mut [u8], hiding: bool) {
    let mut stream = Zeroizing::new(secret.md5_before(start));
    for block in blocks.as_chunks_mut::<16>().0 {
        let hidden = *block;
        for (octet, key) in block.iter_mut().zip(*stream) {
            *octet ^= key;
        }
        let chained = if hiding { *block } else { hidden };
        *stream = secret.md5_before(&[&chained]);
    }
}

/// Hides a password; `None` when it is longer than 128 octets.
pub(super) fn hide_password(
    secret: &Secret,
    authenticator: &[u8; 16],
    clear: &[u8],
) -> Option<Vec<u8>> {
    if clear.len() > MAX_PASSWORD {
        return None;
    }
    let mut blocks = vec![0; clear.len().next_multiple_of(16).max(16)];
    blocks[..clear.len()].copy_from_slice(clear);
    apply(secret, &[authenticator], &mut blocks, true);
    Some(blocks)
}

/// Reads a hidden password with the zeros that fill it up; a server takes them off the end.
///
/// # Errors
/// [`HiddenFault::Size`]: nothing else can be told.
pub fn reveal_password(
    secret: &Secret,
    authenticator: &[u8; 16],
    hidden: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HiddenFault> {
    let fits =
        !hidden.is_empty() && hidden.len().is_multiple_of(16) && hidden.len() <= MAX_PASSWORD;
    if !fits {
        return Err(HiddenFault::Size);
    }
    let mut clear = Zeroizing::new(hidden.to_vec());
    apply(secret, &[authenticator], &mut clear, false);
    Ok(clear)
}

/// Hides a key behind a salt; `None` when it is too long.
pub(super) fn hide_salted(
    secret: &Secret,
    authenticator: &[u8; 16],
    salt: u16,
    clear: &[u8],
) -> Option<Vec<u8>> {
    if clear.len() > MAX_KEY {
        return None;
    }
    let salt = (salt | SALT_BIT).to_be_bytes();
    let mut value = vec![0; 2 + (clear.len() + 1).next_multiple_of(16)];
    value[..2].copy_from_slice(&salt);
    value[2] = clear.len() as u8;
    value[3..3 + clear.len()].copy_from_slice(clear);
    apply(secret, &[authenticator, &salt], &mut value[2..], true);
    Some(value)
}

/// Reads a salted key. `authenticator` is that of the request, in answers too.
///
/// # Errors
/// Says why there is none.
pub fn reveal_salted(
    secret: &Secret,
    authenticator: &[u8; 16],
    value: &[u8],
) -> Result<Zeroizing<Vec<u8>>, HiddenFault> {
    let (salt, hidden) = value.split_first_chunk::<2>().ok_or(HiddenFault::Size)?;
    if hidden.is_empty() || !hidden.len().is_multiple_of(16) {
        return Err(HiddenFault::Size);
    }
    let mut clear = Zeroizing::new(hidden.to_vec());
    apply(secret, &[authenticator, salt], &mut clear, false);
    let length = clear.first().map_or(0, |length| usize::from(*length));
    let key = clear.get(1..=length).unwrap_or_default();
    // What fills up more than a block needs would at least be zeros.
    let filling = clear.get(1 + length..).unwrap_or_default();
    let garbled = filling.len() >= 16 && filling.iter().any(|octet| *octet != 0);
    if key.is_empty() || garbled {
        return Err(if u16::from_be_bytes(*salt) & SALT_BIT == 0 {
            HiddenFault::Salt
        } else {
            HiddenFault::Garbled
        });
    }
    Ok(Zeroizing::new(key.to_vec()))
}

/// Reads a Tunnel-Password (RFC 2868 §3.5): its tag, and the password.
///
/// # Errors
/// As [`reveal_salted`] has it.
pub fn reveal_tunnel_password(
    secret: &Secret,
    authenticator: &[u8; 16],
    value: &[u8],
) -> Result<(u8, Zeroizing<Vec<u8>>), HiddenFault> {
    let (&tag, salted) = value.split_first().ok_or(HiddenFault::Size)?;
    Ok((tag, reveal_salted(secret, authenticator, salted)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_comes_back() {
        let secret = Secret::new("testing123").unwrap();
        for length in [0, 1, 15, 16, 17, 128] {
            let clear = vec![b'x'; length];
            let hidden = hide_password(&secret, &[7; 16], &clear).unwrap();
            let revealed = reveal_password(&secret, &[7; 16], &hidden).unwrap();
            assert_eq!(revealed[..length], clear);
            assert!(revealed[length..].iter().all(|octet| *octet == 0));
        }
        assert!(hide_password(&secret, &[7; 16], &[b'x'; 129]).is_none());
        for length in [1, 15, 16, 31, 32, 239] {
            let clear = vec![b'x'; length];
            let value = hide_salted(&secret, &[7; 16], 1, &clear).unwrap();
            assert!(value.len() <= 247);
            assert_eq!(*reveal_salted(&secret, &[7; 16], &value).unwrap(), clear);
        }
        assert!(hide_salted(&secret, &[7; 16], 1, &[b'x'; 240]).is_none());
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let secret = Secret::new("testing123").unwrap();
        let value = hide_salted(&secret, &[7; 16], 1, &[b'k'; 16]).unwrap();
        for cut in [&value[..0], &value[..1], &value[..2], &value[..17]] {
            assert_eq!(
                reveal_salted(&secret, &[7; 16], cut).err(),
                Some(HiddenFault::Size)
            );
        }
        // One wrong secret in sixteen would give a length that fits.
        let others = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let faults = others.iter().filter(|other| {
            let other = Secret::new(**other).unwrap();
            reveal_salted(&other, &[7; 16], &value).err() == Some(HiddenFault::Garbled)
        });
        assert!(faults.count() >= 6);
        let mut unsalted = value;
        unsalted[0] &= 0x7f;
        assert_eq!(
            reveal_salted(&secret, &[7; 16], &unsalted).err(),
            Some(HiddenFault::Salt)
        );
        for hidden in [&[][..], &[0; 15], &[0; 144]] {
            assert!(reveal_password(&secret, &[7; 16], hidden).is_err());
        }
    }
}
