//! OpenSSL's low-level functions, from the library that is installed here, if one is.
#![allow(unsafe_code, reason = "functions of a C library")]

use std::ffi::{c_int, c_uchar, c_uint, c_void};

use libloading::Library;

/// `RC4_KEY` (`openssl/rc4.h`): `x`, `y` and the table, all of `unsigned int`.
#[repr(C, align(64))]
struct Rc4Key([c_uint; 2 + 256]);

/// `SHA_CTX` (`openssl/sha.h`): five words of state, two of length, a block, and how much of it is used.
#[repr(C, align(64))]
struct ShaContext([c_uint; 5 + 2 + 16 + 1]);

type SetKey = unsafe extern "C" fn(*mut Rc4Key, c_int, *const c_uchar);
type Rc4 = unsafe extern "C" fn(*mut Rc4Key, usize, *const c_uchar, *mut c_uchar);
type Init = unsafe extern "C" fn(*mut ShaContext) -> c_int;
type Update = unsafe extern "C" fn(*mut ShaContext, *const c_void, usize) -> c_int;
type Final = unsafe extern "C" fn(*mut c_uchar, *mut ShaContext) -> c_int;

/// The functions, and contexts that are used again and again.
pub struct OpenSsl {
    set_key: SetKey,
    rc4: Rc4,
    init: Init,
    update: Update,
    finish: Final,
    key: Box<Rc4Key>,
    sha: Box<ShaContext>,
    /// What the functions are in.
    _library: Library,
}

impl OpenSsl {
    pub fn load() -> Result<Self, libloading::Error> {
        // SAFETY: the library is what its name says, and so are its functions: these have had their signatures since
        // OpenSSL 0.9.7 and keep them for as long as the library is called libcrypto.so.3.
        unsafe {
            let library = Library::new("libcrypto.so.3")?;
            Ok(Self {
                set_key: *library.get::<SetKey>(b"RC4_set_key\0")?,
                rc4: *library.get::<Rc4>(b"RC4\0")?,
                init: *library.get::<Init>(b"SHA1_Init\0")?,
                update: *library.get::<Update>(b"SHA1_Update\0")?,
                finish: *library.get::<Final>(b"SHA1_Final\0")?,
                key: Box::new(Rc4Key([0; 258])),
                sha: Box::new(ShaContext([0; 24])),
                _library: library,
            })
        }
    }

    pub fn rc4(&mut self, key: &[u8; 16], octets: &mut [u8]) {
        let data = octets.as_mut_ptr();
        // SAFETY: key and octets are of the lengths that are said; RC4 works in place, too.
        unsafe {
            (self.set_key)(&raw mut *self.key, 16, key.as_ptr());
            (self.rc4)(&raw mut *self.key, octets.len(), data, data);
        }
    }

    pub fn sha1(&mut self, parts: [&[u8]; 4]) -> [u8; 20] {
        let mut digest = [0; 20];
        let context = &raw mut *self.sha;
        // SAFETY: the context is initialised first, parts are of the lengths that are said, and a digest has 20 octets.
        unsafe {
            (self.init)(context);
            for part in parts {
                (self.update)(context, part.as_ptr().cast(), part.len());
            }
            (self.finish)(digest.as_mut_ptr(), context);
        }
        digest
    }
}
