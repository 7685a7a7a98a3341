//! A new password on its way to the server (RFC 2759 §7, §8.9 to §8.13; RFC 2433 §10): under the old one.

use md4::{Digest, Md4};
use rc4::{KeyInit, Rc4, StreamCipher};
use zeroize::{Zeroize, Zeroizing};

use super::{NtHash, Password, des_encrypt};

/// Octets of an encrypted password: room for 256 characters at the end of 512 octets, and the length.
pub const BLOCK_LEN: usize = 516;

/// Where the length stands: octets of the password in UTF-16LE, little-endian.
const LENGTH_AT: usize = 512;

/// `NewPasswordEncryptedWithOldNtPasswordHash` (RFC 2759 §8.9). `filler` must be random: the password overwrites its
/// end. `None` for a password of more than 256 characters (UTF-16 code units).
pub fn encrypt_password(
    new: &Password,
    old: &NtHash,
    filler: [u8; BLOCK_LEN],
) -> Option<[u8; BLOCK_LEN]> {
    let octets: Zeroizing<Vec<u8>> = Zeroizing::new(
        new.as_str()
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect(),
    );
    let start = LENGTH_AT.checked_sub(octets.len())?;
    let mut block = filler;
    block[start..LENGTH_AT].copy_from_slice(&octets);
    block[LENGTH_AT..].copy_from_slice(&u32::try_from(octets.len()).ok()?.to_le_bytes());
    rc4(old, &mut block);
    Some(block)
}

/// What an encrypted password holds.
pub struct Decrypted(Zeroizing<Vec<u8>>);

impl Decrypted {
    /// `NtPasswordHash` of the octets, whether they are text or not.
    pub fn nt_hash(&self) -> NtHash {
        let mut whole = Md4::digest(&*self.0);
        let mut octets = [0; 16];
        octets.copy_from_slice(&whole);
        whole.as_mut_slice().zeroize();
        NtHash::from_bytes(octets)
    }

    /// The password; `None` when it is no UTF-16.
    pub fn password(&self) -> Option<Password> {
        let units = self.0.as_chunks::<2>().0.iter();
        // As much room as UTF-8 can need: no copy is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() * 2));
        for character in char::decode_utf16(units.map(|unit| u16::from_le_bytes(*unit))) {
            text.push(character.ok()?);
        }
        Some(Password::new(core::mem::take(&mut *text)))
    }
}

/// Undoes [`encrypt_password`]. `None` when the length in it makes no sense: it was encrypted under another hash.
pub fn decrypt_password(block: &[u8; BLOCK_LEN], old: &NtHash) -> Option<Decrypted> {
    let mut clear = Zeroizing::new(*block);
    rc4(old, &mut clear);
    let (text, length) = clear.split_at(LENGTH_AT);
    let length = u32::from_le_bytes(length.try_into().ok()?);
    let start = LENGTH_AT.checked_sub(usize::try_from(length).ok()?)?;
    length
        .is_multiple_of(2)
        .then(|| Decrypted(Zeroizing::new(text[start..].to_vec())))
}

/// `OldNtPasswordHashEncryptedWithNewNtPasswordHash` (RFC 2759 §8.12): that the client knows the old password.
pub fn encrypt_hash(old: &NtHash, new: &NtHash) -> [u8; 16] {
    let mut encrypted = [0; 16];
    // RFC 2759 §8.13: the keys are the first 14 octets of the new hash.
    for ((key, clear), part) in new.bytes()[..14]
        .as_chunks::<7>()
        .0
        .iter()
        .zip(old.bytes().as_chunks::<8>().0)
        .zip(encrypted.as_chunks_mut::<8>().0)
    {
        *part = des_encrypt(key, clear);
    }
    encrypted
}

/// RFC 2759 §8.11.
fn rc4(key: &NtHash, block: &mut [u8; BLOCK_LEN]) {
    Rc4::new_from_slice(key.bytes())
        .expect("RC4 takes keys of 1 to 256 octets, this one has 16")
        .apply_keystream(block);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_every_length_come_through() {
        let old = NtHash::from_password("old");
        for password in ["", "a", "пароль", "a𝄞b", &"x".repeat(256)] {
            let block =
                encrypt_password(&Password::new(password), &old, [0xa5; BLOCK_LEN]).unwrap();
            let clear = decrypt_password(&block, &old).unwrap();
            assert_eq!(clear.password().unwrap().as_str(), password);
            assert_eq!(
                clear.nt_hash().bytes(),
                NtHash::from_password(password).bytes()
            );
        }
        let long = Password::new("x".repeat(257));
        assert!(encrypt_password(&long, &old, [0; BLOCK_LEN]).is_none());
    }

    #[test]
    fn lengths_that_make_no_sense_are_refused() {
        let old = NtHash::from_password("old");
        for length in [1u32, 511, 513, 514, u32::MAX] {
            let mut block = [0; BLOCK_LEN];
            block[LENGTH_AT..].copy_from_slice(&length.to_le_bytes());
            rc4(&old, &mut block);
            assert!(decrypt_password(&block, &old).is_none(), "{length}");
        }
    }

    #[test]
    fn what_is_no_text_has_a_hash_but_no_password() {
        let old = NtHash::from_password("old");
        let mut block = [0; BLOCK_LEN];
        block[LENGTH_AT - 2..LENGTH_AT].copy_from_slice(&0xd800_u16.to_le_bytes());
        block[LENGTH_AT] = 2;
        rc4(&old, &mut block);
        assert!(decrypt_password(&block, &old).unwrap().password().is_none());
    }
}
