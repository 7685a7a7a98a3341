//! RC4 by a loop of the shape that Linux has, compiled as Linux is: `linux.c`.
#![allow(unsafe_code, reason = "functions of a C library")]

/// `struct rc4` of `linux.c`.
#[repr(C)]
struct Rc4 {
    table: [u32; 256],
    x: u32,
    y: u32,
}

unsafe extern "C" {
    fn turnpike_bench_rc4_key(rc4: *mut Rc4, key: *const u8, len: usize);
    fn turnpike_bench_rc4(rc4: *mut Rc4, data: *mut u8, len: usize);
}

/// The loop, and a table that is used again and again.
pub struct KernelLoop(Box<Rc4>);

impl KernelLoop {
    pub fn new() -> Self {
        Self(Box::new(Rc4 {
            table: [0; 256],
            x: 0,
            y: 0,
        }))
    }

    pub fn rc4(&mut self, key: &[u8; 16], octets: &mut [u8]) {
        let rc4 = &raw mut *self.0;
        // SAFETY: the struct is the other side's, and key and octets are of the lengths that are said.
        unsafe {
            turnpike_bench_rc4_key(rc4, key.as_ptr(), key.len());
            turnpike_bench_rc4(rc4, octets.as_mut_ptr(), octets.len());
        }
    }
}
